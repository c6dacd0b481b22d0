"""Roots, listings, metadata, slices, downloads: what every client does, on any deployment."""

from __future__ import annotations

import tempfile
from pathlib import Path

import blosc2
import numpy as np

from ..client.group import Group
from ..client.remote_array import RemoteArray
from ..client.remote_file import RemoteFile
from ..errors import DatasetNotFoundError, RootNotFoundError
from .case import Case

MAX_NBYTES = 32 << 20
MAX_DATASETS = 50


class CheckReading(Case):
    """On the first root that is online."""

    def arrays(self) -> list[RemoteArray]:
        """Some arrays of a reasonable size."""
        root = self.client[self.deployment.root]
        assert isinstance(root, Group)
        found: list[RemoteArray] = []
        for path in root.walk():
            opened = root[path]
            if isinstance(opened, RemoteArray) and opened.nbytes <= MAX_NBYTES:
                found.append(opened)
            if len(found) >= MAX_DATASETS:
                break
        return found

    def test_roots_are_listed(self) -> None:
        self.assertIn(self.deployment.root, self.client.roots)
        self.assertEqual(self.client.health()["status"], "ok")

    def test_every_dataset_is_listed_where_it_is_found(self) -> None:
        root = self.client[self.deployment.root]
        assert isinstance(root, Group)
        for _, path in zip(range(MAX_DATASETS), root.walk(), strict=False):
            self.assertIn(path, root)

    def test_slices_are_those_of_the_whole(self) -> None:
        for array in self.arrays():
            with self.subTest(array.path):
                whole = array[...]
                self.assertEqual((whole.shape, whole.dtype), (array.shape, array.dtype))
                for axis, length in enumerate(array.shape):
                    key = (*[slice(None)] * axis, slice(length // 3, length, 2))
                    np.testing.assert_array_equal(array[key], whole[key])

    def test_a_download_is_what_is_read(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            for array in [a for a in self.arrays() if a.dtype.kind != "O"][:5]:
                with self.subTest(array.path):
                    saved = array.download(Path(directory) / "copy.b2nd")
                    np.testing.assert_array_equal(blosc2.open(str(saved))[...], array[...])

    def test_what_is_not_there_is_said_to_be(self) -> None:
        with self.assertRaises(RootNotFoundError):
            self.client["no-such-root"]
        with self.assertRaises(DatasetNotFoundError):
            self.client[f"{self.deployment.root}/no-such-dataset"]


class CheckExampleRoot(Case):
    """Values that are known."""

    needs_own_services = True

    def test_the_quick_start(self) -> None:
        array = self.client["foo/dir2/ds-4d.b2nd"]
        assert isinstance(array, RemoteArray)
        np.testing.assert_array_equal(array[1, 2, 3], np.arange(115, 120) * (1 + 1j))
        hello = self.client["foo/ds-hello.b2frame"]
        assert isinstance(hello, RemoteFile)
        self.assertEqual(hello[:12], b"Hello world!")

    def test_a_change_is_heard_of(self) -> None:
        goal = self.own.directory / "root-example" / "new.b2nd"
        root = self.client["foo"]
        assert isinstance(root, Group)
        self.assertNotIn("new.b2nd", root)
        blosc2.asarray(np.arange(10), urlpath=str(goal), mode="w")
        self.wait_for(lambda: "new.b2nd" in root)
        array = root["new.b2nd"]
        assert isinstance(array, RemoteArray)
        np.testing.assert_array_equal(array[:], np.arange(10))
        goal.unlink()
        self.wait_for(lambda: "new.b2nd" not in root)

    def test_what_was_read_is_read_again_with_the_publisher_away(self) -> None:
        publisher = self.own.start(
            "publisher-away", "publisher.app", *self.own.at_broker, "--statedir=pub.away", "away", "root-example"
        )
        publisher.url()
        self.wait_for(lambda: "away" in self.client.roots)
        array = self.client["away/ds-1d.b2nd"]
        assert isinstance(array, RemoteArray)
        values = array[:]
        publisher.stop()
        self.wait_for(lambda: not self.client.roots["away"].online)
        np.testing.assert_array_equal(array[:], values)
        self.assertEqual(array.freshness.state, "offline")

"""The programs: the command line of clients, and the tools."""

from __future__ import annotations

import json
import unittest
from pathlib import Path

from .case import Case, needs


@needs("rich", "clients")
class CheckCommandLine(Case):
    """``cat2cli``."""

    def test_roots_and_listings(self) -> None:
        self.assertIn(self.deployment.root, self.run_program("cli.main", "roots"))
        listed = json.loads(self.run_program("cli.main", "list", "--json", self.deployment.root))
        self.assertTrue(listed)

    def test_errors_are_one_line_and_exit_code_1(self) -> None:
        self.assertIn("no-such-root", self.run_program("cli.main", "list", "no-such-root", check=False))


@needs("rich", "clients")
class CheckQuickStart(Case):
    """The commands of the quick start."""

    needs_own_services = True

    def test_show_info_url_download(self) -> None:
        self.assertEqual(self.run_program("cli.main", "subscribe", "foo").strip(), "Ok")
        self.assertEqual(self.run_program("cli.main", "show", "foo/ds-hello.b2frame[:12]").strip(), "Hello world!")
        self.assertEqual(
            self.run_program("cli.main", "show", "foo/dir2/ds-4d.b2nd[1,2,3]").strip(),
            "[115.+115.j 116.+116.j 117.+117.j 118.+118.j 119.+119.j]",
        )
        self.assertIn("'shape': [2, 3, 4, 5]", self.run_program("cli.main", "info", "foo/dir2/ds-4d.b2nd"))
        said = self.run_program("cli.main", "download", "foo/README.md", "saved.md")
        self.assertIn("saved.md", said)
        example = self.own.directory / "root-example" / "README.md"
        self.assertEqual((self.own.directory / "saved.md").read_bytes(), example.read_bytes())

    def test_the_cache_is_told_and_cleared(self) -> None:
        self.run_program("cli.main", "cache", "prefetch", "foo/dir2")
        told = json.loads(self.run_program("cli.main", "cache", "status", "--json", "foo"))
        self.assertTrue(told)
        self.run_program("cli.main", "cache", "verify", "foo")
        self.run_program("cli.main", "cache", "clear", "foo")


@needs("h5py", "tools")
class CheckTools(unittest.TestCase):
    """``cat2import`` and ``cat2export``."""

    def test_an_hdf5_file_becomes_a_root_and_back(self) -> None:
        import tempfile

        import h5py
        import numpy as np

        from ..tools import export_hdf5, import_hdf5

        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            with h5py.File(directory / "a.h5", "w") as file:
                file["group/x"] = np.arange(12.0).reshape(3, 4)
                file["group/x"].attrs["units"] = "m"
            self.assertEqual(import_hdf5.main([str(directory / "a.h5"), str(directory / "root")]), 0)
            self.assertEqual(export_hdf5.main([str(directory / "root"), str(directory / "b.h5")]), 0)
            with h5py.File(directory / "b.h5") as file:
                np.testing.assert_array_equal(file["group/x"], np.arange(12.0).reshape(3, 4))
                self.assertEqual(file["group/x"].attrs["units"], "m")

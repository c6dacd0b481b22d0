"""What is written to a subscriber: areas, users, stored expressions."""

from __future__ import annotations

import urllib.request

import numpy as np

from ..client.client import connect
from ..client.remote_array import RemoteArray
from ..errors import Caterva2Error, DatasetNotFoundError
from .case import Case, needs


@needs("argon2", "subscriber")
class CheckAreas(Case):
    """A subscriber with users, as they use it."""

    needs_own_services = True

    def setUp(self) -> None:
        super().setUp()
        self.users = self.own.subscriber_with_users()
        self.ada = connect(self.users, username="ada@example.org", password="correct horse")  # noqa: S106
        self.addCleanup(self.ada.close)

    def test_arrays_are_uploaded_copied_moved_and_removed(self) -> None:
        values = np.arange(12.0).reshape(3, 4)
        self.ada.upload(values, "@public/runs/numbers")
        copy = self.ada.copy("@public/runs/numbers", "@shared/copy.b2nd")
        assert isinstance(copy, RemoteArray)
        np.testing.assert_array_equal(copy[1:, ::2], values[1:, ::2])
        moved = self.ada.move("@shared/copy.b2nd", "@personal/moved.b2nd")
        assert isinstance(moved, RemoteArray)
        np.testing.assert_array_equal(moved[...], values)
        with self.assertRaises(DatasetNotFoundError):
            self.ada["@shared/copy.b2nd"]
        self.ada.remove("@personal/moved.b2nd")
        with self.assertRaises(DatasetNotFoundError):
            self.ada["@personal/moved.b2nd"]

    def test_strangers_do_not_write_and_do_not_see_what_is_shared(self) -> None:
        self.ada.upload(np.arange(3), "@public/seen")
        with connect(self.users) as stranger:
            seen = stranger["@public/seen"]
            assert isinstance(seen, RemoteArray)
            self.assertEqual(seen[...].tolist(), [0, 1, 2])
            with self.assertRaises(Caterva2Error):
                stranger["@shared"]
            with self.assertRaises(Caterva2Error):
                stranger.upload(np.arange(3), "@public/mine")

    def test_a_wrong_password_is_refused(self) -> None:
        with self.assertRaises(Caterva2Error), connect(self.users, username="ada@example.org", password="x") as c:  # noqa: S106
            c.users.current()

    def test_expressions_are_stored_and_read(self) -> None:
        a = np.arange(20.0).reshape(4, 5)
        self.ada.upload(a, "@public/a")
        saved = self.ada.lazyexpr("where(x > 3, x, 0) + sin(x)", {"x": "@public/a"}, name="@public/waves")
        assert isinstance(saved, RemoteArray)
        np.testing.assert_allclose(saved[1:3], (np.where(a > 3, a, 0) + np.sin(a))[1:3])

    def test_there_is_a_page_to_log_in(self) -> None:
        with urllib.request.urlopen(f"{self.users}/login", timeout=30) as answer:
            self.assertIn("text/html", answer.headers["Content-Type"])

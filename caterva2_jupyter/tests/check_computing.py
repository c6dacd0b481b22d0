"""What is computed from arrays, and arrays that a program publishes itself."""

from __future__ import annotations

import unittest
import urllib.request

import numpy as np

from ..client.group import Group
from ..client.remote_array import RemoteArray
from .case import Case, needs


class CheckComputing(Case):
    """Expressions in Python, reductions, overviews."""

    def array(self) -> RemoteArray:
        root = self.client[self.deployment.root]
        assert isinstance(root, Group)
        for path in root.walk():
            found = root[path]
            is_small = isinstance(found, RemoteArray) and 0 < found.nbytes < 1 << 20
            if isinstance(found, RemoteArray) and is_small and found.dtype.kind in "iuf" and found.ndim:
                return found
        raise unittest.SkipTest("the root has no small array of numbers")

    def test_python_operators_make_expressions(self) -> None:
        array = self.array()
        values = array[...].astype("f8")
        np.testing.assert_allclose((array * 2.0 + 1.0)[...], values * 2 + 1)
        np.testing.assert_allclose(self.client.lazyexpr("sqrt(a * a)", {"a": array})[...], np.sqrt(values * values))

    def test_reductions_are_those_of_numpy(self) -> None:
        array = self.array()
        values = array[...]
        np.testing.assert_allclose(np.asarray(array.mean()), values.mean())
        np.testing.assert_array_equal(np.asarray(array.max(axis=0)), values.max(axis=0))

    def test_an_overview_is_smaller(self) -> None:
        array = self.array()
        self.assertLessEqual(np.asarray(array.overview(4)).size, max(array.size, 4))


class CheckPage(Case):
    """The page for browsers."""

    needs_own_services = True

    def test_the_page_is_served(self) -> None:
        with urllib.request.urlopen(f"{self.client.url_base}/", timeout=30) as answer:
            self.assertIn("text/html", answer.headers["Content-Type"])


@needs("tornado", "base-services")
class CheckPublishing(Case):
    """``publish``: a root that a program serves while it runs."""

    needs_own_services = True

    def test_arrays_in_memory_are_a_root_until_it_is_closed(self) -> None:
        from ..publishing import publish

        values = np.arange(10)
        with publish({"x": values}, name="mine", broker=self.own.broker.url().removeprefix("http://")) as published:
            self.wait_for(lambda: "mine" in self.client.roots and self.client.roots["mine"].online)
            array = self.client["mine/x"]
            assert isinstance(array, RemoteArray)
            np.testing.assert_array_equal(array[...], values)
            published.update("x", values + 1)
            self.wait_for(lambda: self.client["mine/x"][0] == 1)  # type: ignore[index]
        self.wait_for(lambda: not self.client.roots["mine"].online)

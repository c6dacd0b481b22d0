"""``RemotePath``: the path of a dataset in a group, as text, that programs which open files take for its address."""

from __future__ import annotations

import os
from collections import UserString

__all__ = ["RemotePath"]


class RemotePath(UserString, os.PathLike[str]):
    """A path relative to a group: compares, sorts and hashes as that text.

    ``os.fspath(path)`` is the whole address, so ``xarray.open_mfdataset(root.glob("*.nc"))`` opens what was found.

    Parameters
    ----------
    text : str
        Relative to the group.
    address : str
        Of the dataset: ``cat2http://HOST/BASE/-/ROOT/PATH``.

    Examples
    --------
    >>> path = RemotePath("run1.nc", "cat2http://localhost:8002/-/foo/run1.nc")
    >>> path == "run1.nc", path.endswith(".nc"), os.fspath(path)
    (True, True, 'cat2http://localhost:8002/-/foo/run1.nc')
    """

    def __init__(self, text: str, address: str = "") -> None:
        super().__init__(text)
        self.address = address

    def __fspath__(self) -> str:
        return self.address

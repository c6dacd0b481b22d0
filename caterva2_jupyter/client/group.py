"""``Group``: a root or directory as a mapping of its direct children; what opening a path gives.

It lists and opens; data is read by the arrays and files that come out of it.
"""

from __future__ import annotations

import os
from collections.abc import ItemsView, Iterator, Mapping, ValuesView
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

from ..core.attributes import decode_attrs
from ..core.catalog import CatalogQuery
from ..core.dtypes import is_vlen
from ..core.metadata import Entry
from ..core.once import once
from ..core.paths import join, matches, parse_path, whole_address
from ..core.paths import name as last_name
from ..errors import Caterva2Error, ConfigError, InvalidPathError, NotFoundError, UnsupportedDatasetError
from .address import DatasetAddress
from .conversions import conversion
from .download import download
from .progress import Progress, telling
from .remote_array import RemoteArray
from .remote_dataset import RemoteDataset
from .remote_file import RemoteFile
from .remote_path import RemotePath
from .representation import format_nbytes, html_table, plain
from .session import Session
from .showing import Viewed
from .suggestions import suggesting
from .writable import Writable

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Group", "RemoteObject", "UnsupportedDataset", "open_entry"]

SHOWN_CHILDREN = 40
COMPLETED_CHILDREN = 1000


class UnsupportedDataset(Writable):
    """Something that is listed but cannot be read: it says why, and raises when it is read.

    Examples
    --------
    >>> import h5py
    >>> with h5py.File("refs.h5", "w") as file:
    ...     file["refs"] = np.array([file.ref], h5py.ref_dtype)
    >>> with cat2.publish("refs.h5", follow=False) as published:
    ...     refs = cat2.connect(published.url)["refs/refs.b2nd"]
    >>> refs
    <UnsupportedDataset refs/refs.b2nd: its values are object references, which have no meaning outside of their file>
    """

    @property
    def reason(self) -> str:
        """Why it cannot be read."""
        if self.entry.kind == "link":
            target = f" to {self.entry.target!r}" if self.entry.target else ""
            return f"a link{target} that is not followed" + (f": {self.entry.reason}" if self.entry.reason else "")
        return self.entry.reason or "no reason is given"

    @property
    def attrs(self) -> Mapping[str, Any]:
        """Attributes by name."""
        return MappingProxyType(decode_attrs(self._session.complete(self._root, self.entry).attrs))

    def _refuse(self) -> NoReturn:
        raise UnsupportedDatasetError(f"{self._root}/{self.path} cannot be read: {self.reason}")

    def __getitem__(self, key: object) -> NoReturn:
        """Raise `UnsupportedDatasetError` with the reason."""
        self._refuse()

    def __array__(self, dtype: object = None, copy: object = None) -> NoReturn:
        self._refuse()

    def download(self, path: str | os.PathLike[str] | None = None, progress: Progress | None = None) -> Path:
        """Write the stored file to a local one, where it is a file of its own.

        Raises
        ------
        UnsupportedDatasetError
        """
        return download(self._session, self._root, self.entry, path, progress)

    def __repr__(self) -> str:
        return f"<UnsupportedDataset {plain(f'{self._root}/{self.path}')}: {plain(self.reason)}>"

    def _repr_html_(self) -> str:
        return html_table(f"UnsupportedDataset {self._root}/{self.path}", {"reason": self.reason})


class Group(Viewed, Writable, Mapping[str, "RemoteObject"]):
    """A root, a directory, a group of an HDF5 file, or that file itself: a mapping of its direct children.

    Keys are names, with their suffix; ``group["dir/x"]`` reaches below, and ``.b2nd`` may be left out when
    asking. Listings are asked for anew each time.

    Examples
    --------
    >>> root = client["foo"]
    >>> sorted(root)[:4]
    ['README.md', 'dir1', 'dir2', 'ds-1d-b.b2nd']
    >>> root["dir1/ds-2d"], "dir1" in root, len(root)
    (<RemoteArray foo/dir1/ds-2d.b2nd shape=(10, 20) dtype=uint16>, True, 9)
    >>> {name: type(child).__name__ for name, child in root.items()}["dir1"]
    'Group'
    >>> [child.name for child in root["dir1"].values()]
    ['ds-2d.b2nd', 'ds-3d.b2nd']
    >>> list(root.glob("**/*.b2nd"))[:2], next(root.walk())
    (['dir1/ds-2d.b2nd', 'dir1/ds-3d.b2nd'], 'README.md')
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return open_entry_json, (self._session, self._root, {"path": self.path, "kind": "group", "attrs_inline": False})

    @property
    def attrs(self) -> Mapping[str, Any]:
        """Attributes by name, read-only."""
        return self._attrs

    @once
    def _attrs(self) -> Mapping[str, Any]:
        return MappingProxyType(decode_attrs(self._session.complete(self._root, self._entry).attrs))

    def entries(self, depth: int = 0, q: str = "") -> Iterator[Entry]:
        """Catalog entries below, ascending by path, attributes inline where they are small.

        Parameters
        ----------
        depth : int
            Levels below this group; 1 are its children, 0 is no limit.
        q : str
            A filter, see ``core.catalog.parse_filter``.

        Raises
        ------
        DatasetNotFoundError, RequestError

        Examples
        --------
        >>> [(entry.path, entry.kind) for entry in client["foo/dir1"].entries()]
        [('dir1/ds-2d.b2nd', 'array'), ('dir1/ds-3d.b2nd', 'array')]
        """
        return self._session.service.entries(self._root, CatalogQuery(under=self.path, depth=depth, q=q))

    def __getitem__(self, path: str | RemotePath) -> RemoteObject:
        """Open what is at a path below this group.

        Parameters
        ----------
        path : str or RemotePath
            Relative to this group; the suffix ``.b2nd`` may be left out.

        Returns
        -------
        Group, RemoteArray, RemoteFile or UnsupportedDataset

        Raises
        ------
        DatasetNotFoundError, InvalidPathError

        Examples
        --------
        >>> client["foo"]["dir1/ds-2d"].shape
        (10, 20)
        """
        whole = join(self.path, self._relative(path))
        with suggesting(self._session.service, self._root, whole):
            return open_path(self._session, self._root, whole)

    def _ipython_key_completions_(self) -> list[str]:
        """What may follow ``group["``: the names in it."""
        query = CatalogQuery(under=self.path, depth=1, limit=COMPLETED_CHILDREN)
        return list(self._names(self._session.service.page(self._root, query).entries()))

    def get(self, path: str, default: Any = None) -> Any:
        """What is at a path below this group, or ``default`` when nothing is there.

        Parameters
        ----------
        path : str or RemotePath
            Relative to this group.
        default : object

        Returns
        -------
        Group, RemoteArray, RemoteFile, UnsupportedDataset, or ``default``

        Raises
        ------
        InvalidPathError, SourceUnavailableError

        Examples
        --------
        >>> client["foo"].get("nothing") is None
        True
        """
        try:
            return open_path(self._session, self._root, join(self.path, self._relative(path)))
        except NotFoundError:
            return default

    def _relative(self, path: str | RemotePath) -> str:
        if not isinstance(path, (str, RemotePath)):
            raise TypeError(f"a group is indexed by paths, as group['dir/x'], not by {type(path).__name__}")
        relative = parse_path(str(path))
        if not relative:
            raise InvalidPathError(f"not a path below {whole_address(self._root, self.path)}: {path!r}")
        return relative

    def __contains__(self, path: object) -> bool:
        if not isinstance(path, (str, RemotePath)):
            return False
        try:
            return self._session.service.exists(self._root, join(self.path, self._relative(path)))
        except InvalidPathError:
            return False

    def _names(self, entries: Iterator[Entry]) -> Iterator[str]:
        skip = len(self.path) + 1 if self.path else 0
        return (e.path[skip:] for e in entries)

    def __iter__(self) -> Iterator[str]:
        return self._names(self.entries(depth=1))

    def __len__(self) -> int:
        return sum(1 for _ in self.entries(depth=1))

    def __bool__(self) -> bool:
        return True

    def items(self) -> ItemsView[str, RemoteObject]:
        """Names and what they stand for, by one listing."""
        return _Items(self)

    def values(self) -> ValuesView[RemoteObject]:
        """What the names stand for, by one listing."""
        return _Values(self)

    def walk(self) -> Iterator[str]:
        """The path of every dataset below, relative to this group, ascending; groups are left out."""
        return self._names(e for e in self.entries() if e.kind != "group")

    def glob(self, pattern: str) -> Iterator[RemotePath]:
        """The paths below, relative to this group, that match; groups too.

        Parameters
        ----------
        pattern : str
            ``*`` stays within a name, ``**`` crosses levels.

        Yields
        ------
        RemotePath
            Text, but for programs that open files: to them it is the address.

        Examples
        --------
        >>> list(client["foo"].glob("dir*/*-2d*"))
        ['dir1/ds-2d.b2nd']
        """
        depth = 0 if "**" in pattern else pattern.count("/") + 1
        for path in self._names(self.entries(depth=depth)):
            if matches(path, pattern):
                yield RemotePath(
                    path, str(DatasetAddress(self._session.service.url, self._root, join(self.path, path)))
                )

    def upload(
        self, obj: object, path: str = "", progress: Progress | None = None, *, overwrite: bool = False
    ) -> RemoteObject:
        """Put something into this area, or this directory of one.

        Parameters
        ----------
        obj : object
            A local path (a directory with all that is in it), ``bytes``, a binary file object, a NumPy array, a
            ``blosc2.NDArray`` or ``SChunk``, an xarray Dataset, DataArray or DataTree; or an array, file or group of a
            Caterva2 service, which the service copies itself where it is the same.
        path : str
            Below this group; missing directories are made. Arrays have the suffix ``.b2nd``, which is added. A trailing
            slash, or no path, keeps the name that the object has.
        progress : callable, optional
            Called with ``(done_nbytes, total_nbytes)``.
        overwrite : bool
            May a file that is there be replaced?

        Returns
        -------
        Group, RemoteArray, RemoteFile or UnsupportedDataset
            What it is now. A file appears when all of it has come, and not before.

        Raises
        ------
        ConflictError
            When something is there.
        TooLargeError
            When the areas are full.
        AuthenticationError, AccessDeniedError
            When you may not write there.
        UnsupportedDatasetError
            When it cannot be uploaded.

        Examples
        --------
        >>> client["@personal"].upload(np.arange(4), "steps.b2nd", overwrite=True)
        <RemoteArray @personal/steps.b2nd shape=(4,) dtype=int64>
        """
        address = self._address_of(path.rstrip("/")) + ("/" if path.endswith("/") or not path else "")
        if isinstance(obj, (Group, RemoteDataset, UnsupportedDataset)):
            return self._copy_here(obj, address, progress, overwrite=overwrite)
        with telling(progress, self._session.bars, f"upload to {address}") as progress:
            return self._at(self._areas.upload(obj, address, progress, overwrite=overwrite))

    def _copy_here(
        self,
        obj: Group | RemoteDataset | UnsupportedDataset,
        address: str,
        progress: Progress | None,
        *,
        overwrite: bool,
    ) -> RemoteObject:
        if isinstance(obj, RemoteArray) and not address.endswith(("/", ".b2nd")):
            address += ".b2nd"
        if obj._session.service.url == self._session.service.url:
            return obj.copy(address, overwrite=overwrite)
        if isinstance(obj, Group) and not obj._entry.version:
            raise UnsupportedDatasetError(
                f"{obj!r} is a directory of another service: upload what is in it one by one, or follow that service"
            )
        with TemporaryDirectory(prefix="caterva2-") as directory:
            local = obj.download(Path(directory, last_name(obj.path)))
            return self._at(self._areas.upload(local, address, progress, overwrite=overwrite))

    def mkdir(self, path: str) -> Group:
        """Make a directory in this area, and those that it is in; fine when it is there.

        Parameters
        ----------
        path : str
            Below this group.

        Raises
        ------
        ConflictError
            When a file is there.
        AuthenticationError, AccessDeniedError

        Examples
        --------
        >>> client["@personal"].mkdir("runs/2")
        <Group @personal/runs/2>
        """
        made = self._at(self._areas.make_directory(self._address_of(self._relative(path))))
        assert isinstance(made, Group)
        return made

    def download(self, path: str | os.PathLike[str] | None = None, progress: Progress | None = None) -> Path:
        """Write the file that this group is the content of (an HDF5 file in a directory).

        Raises
        ------
        UnsupportedDatasetError
            For a directory.
        """
        if not self._entry.version:
            raise UnsupportedDatasetError(
                f"{whole_address(self._root, self.path)} is a directory: download its datasets one by one"
            )
        return download(self._session, self._root, self._entry, path, progress)

    def to_xarray(self, pattern: str | None = None, *, concat_dim: str | None = None, **options: Any) -> xr.Dataset:
        """A file or directory as an xarray Dataset, or all files that match as one. No array is read, but indexes.

        Parameters
        ----------
        pattern : str, optional
            Of files (HDF5, netCDF4) or directories of ``.b2nd`` below, as for ``glob``. Without it, this group itself.
        concat_dim : str, optional
            The dimension that the files are joined along; needed with ``pattern``. Where they do not have it, each is
            one item of it. They are put in the order of its coordinate, or of their paths.
        **options
            Without a pattern, those of ``xarray.open_dataset(engine="caterva2")``. With one:
            ``drop_variables``, ``mask_and_scale``, ``decode_times`` and ``chunks`` as there, and
            ``differences="warn"``, which joins variables of different units all the same.

        Returns
        -------
        xarray.Dataset
            Lazy. Of many files: each is decoded by its own attributes (units of times, scale, fill value); what is
            not along ``concat_dim`` is that of the first file.

        Raises
        ------
        DatasetNotFoundError
            When nothing matches.
        ValueError
            When files do not join: other dimensions or lengths, calendars, units, or values of an index.
        ConfigError
            When xarray is not installed, or ``concat_dim`` is missing.

        Warns
        -----
        UserWarning
            Once, of all that differs between the files.

        Examples
        --------
        >>> ds = client["foo/dir1"].to_xarray()
        >>> ds["ds-2d"].shape, ds["ds-2d"].dtype
        ((10, 20), dtype('uint16'))
        """
        try:
            if pattern is None and concat_dim is None:
                opened: xr.Dataset = conversion("xarray_backend.conversions", "open_one")(self, **options)
                return opened
            if pattern is None or concat_dim is None:
                raise ConfigError("to_xarray() joins files with both: to_xarray('*.nc', concat_dim='time')")
            joined: xr.Dataset = conversion("xarray_backend.cubes", "open_cube")(self, pattern, concat_dim, **options)
            return joined
        except ModuleNotFoundError as error:
            raise ConfigError(f"to_xarray() needs {error.name}: pip install 'caterva2-jupyter[xarray]'") from None

    def to_datatree(self, group: str | None = None, **options: Any) -> xr.DataTree:
        """A file, directory or root, and all below it, as an xarray DataTree. No array is read, but indexes.

        Parameters
        ----------
        group : str, optional
            Path of a group in it to begin with.
        **options
            Those of ``xarray.open_datatree(engine="caterva2")``.

        Returns
        -------
        xarray.DataTree
            Lazy; files and directories are nodes of it, as groups are.

        Raises
        ------
        ConfigError
            When xarray is not installed.
        DatasetNotFoundError
            When there is no such group.

        Warns
        -----
        UserWarning
            Names what cannot be read, with the reasons.

        Examples
        --------
        >>> tree = client["foo"].to_datatree()
        >>> tree["dir1/ds-2d"].shape
        (10, 20)
        """
        try:
            tree: xr.DataTree = conversion("xarray_backend.conversions", "open_tree")(self, group=group, **options)
        except ModuleNotFoundError as error:
            raise ConfigError(f"to_datatree() needs {error.name}: pip install 'caterva2-jupyter[xarray]'") from None
        return tree

    def __repr__(self) -> str:
        return f"<Group {plain(whole_address(self._root, self.path))}>"

    def _repr_html_(self) -> str:
        """A table of the children, for notebooks; every text in it is escaped."""
        query = CatalogQuery(under=self.path, depth=1, limit=SHOWN_CHILDREN)
        try:
            listed = self._session.service.page(self._root, query)
        except Caterva2Error as error:
            return html_table(repr(self)[1:-1], {"cannot be listed": str(error)})
        title = repr(self)[1:-1]
        with suppress(Caterva2Error):
            status = self._session.service.roots().get(self._root)
            title += "" if status is None or status.online else " (offline)"
        facts = {last_name(entry.path): _summary(entry) for entry in listed.entries()}
        if listed.next is not None:
            facts["…"] = f"more than {SHOWN_CHILDREN}: list(group), or group.glob(pattern)"
        return html_table(title, facts, self.attrs if self._entry.attrs_inline else {})


class _Items(ItemsView[str, "RemoteObject"]):
    def __init__(self, group: Group) -> None:
        super().__init__(group)
        self._group = group

    def __iter__(self) -> Iterator[tuple[str, RemoteObject]]:
        group = self._group
        for entry in group.entries(depth=1):
            yield last_name(entry.path), open_entry(group._session, group.root, entry)


class _Values(ValuesView["RemoteObject"]):
    def __init__(self, group: Group) -> None:
        super().__init__(group)
        self._group = group

    def __iter__(self) -> Iterator[RemoteObject]:
        return (value for _, value in _Items(self._group))


RemoteObject = Group | RemoteArray | RemoteFile | UnsupportedDataset


def _summary(entry: Entry) -> str:
    if entry.geometry is not None and entry.kind == "array":
        geometry = entry.geometry
        shape = " × ".join(f"{n:,}" for n in geometry.shape) or "scalar"
        return f"{shape}  {'strings' if is_vlen(geometry.dtype) else geometry.dtype}"
    if entry.geometry is not None:
        return f"file, {format_nbytes(entry.nbytes)}"
    if entry.kind == "group":
        return "file with groups" if entry.version else "group"
    return entry.kind + (f": {entry.reason}" if entry.reason else "")


def open_entry(session: Session, root: str, entry: Entry) -> RemoteObject:
    """The object that an entry of a listing stands for; no request."""
    if entry.kind == "group":
        return Group(session, root, entry)
    if entry.kind == "array":
        return RemoteArray(session, root, entry)
    if entry.kind == "file":
        return RemoteFile(session, root, entry)
    return UnsupportedDataset(session, root, entry)


def open_entry_json(session: Session, root: str, form: Mapping[str, Any]) -> RemoteObject:
    """As ``open_entry``, from JSON (of a pickle)."""
    return open_entry(session, root, Entry.from_json(form))


def open_path(session: Session, root: str, path: str) -> RemoteObject:
    """Open what is at a path, by one request."""
    return open_entry(session, root, session.service.entry(root, path))

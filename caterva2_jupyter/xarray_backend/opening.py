"""Opening an address as an xarray Dataset, or all groups below it: what is asked of the service, in few requests.

One request for the entry, one for the listing of all that is needed of a file or directory (pages of 10,000), and one
for the values that open it (``lazy_array.FirstReads``). Everything else is read when it is used.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import xarray as xr
from xarray import conventions
from xarray.core import indexing

from ..client.address import parse_address
from ..client.group import Group
from ..client.remote_array import RemoteArray
from ..client.session import Session, find_session
from ..client.suggestions import suggesting
from ..compute.netcdf_attributes import blosc2_attributes, netcdf_attributes
from ..compute.netcdf_dimensions import DimensionCounter, ListedGroup, PhonyDims, build_tree, dataset_name, shape_of
from ..core.catalog import MAX_PAGE, CatalogQuery
from ..core.metadata import HDF5_MEDIA_TYPE, Entry
from ..core.paths import names_below, parent, parse_path
from ..core.selection import AxisRange, Selection
from ..errors import ConfigError, DatasetChangedError, DatasetNotFoundError, InvalidPathError, UnsupportedDatasetError
from .lazy_array import FirstReads, LazyArray
from .variables import is_hdf5, make_variable
from .versioned_variable import versioned

__all__ = ["Decoding", "Opened", "open_target"]

MAX_FIRST_NBYTES = 16 << 20
"""Coordinates that are larger are read by themselves, by several requests at once."""
MAX_ALL_FIRST_NBYTES = 256 << 20
"""Of all that is read by one request; the rest comes when it is used."""

_OURS = ("xarray", __name__.partition(".")[0])
SCHEMES = ("cat2://", "cat2http://", "cat2https://", "cat2http+unix://")

Target = Any
"""An address, a ``Group``, a ``RemoteArray``, or what was listed of one of those (``Opened``)."""


@dataclass(frozen=True, slots=True)
class Decoding:
    """xarray's options of CF decoding, as its own backends have them."""

    mask_and_scale: Any = True
    decode_times: Any = True
    concat_characters: Any = True
    decode_coords: Any = True
    use_cftime: Any = None
    decode_timedelta: Any = None

    def keywords(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(slots=True)
class Opened:
    """What an address stands for, listed: from here on, datasets are made of it without further listings.

    Attributes
    ----------
    session : Session
    root : str
    top : ListedGroup
        The file, or the directory, that was listed.
    path : tuple of str
        Names of the groups on the way from there to the one that is meant.
    array : str
        Name of the one array that is meant in that group; empty for the group.
    source : str
        Address of the file or directory.
    """

    session: Session
    root: str
    top: ListedGroup
    path: tuple[str, ...]
    array: str
    source: str
    skipped: dict[str, str] = field(default_factory=dict)
    nphony: int = 0

    def __dask_tokenize__(self) -> tuple[object, ...]:
        """Names of dask arrays are made of the versions of all that was listed: another version has other names."""
        versions = [(e.id, e.version) for _, g in self.top.walk() for e in g.datasets.values()]
        return ("caterva2", self.top.entry.id, self.top.entry.version, self.path, self.array, versions)

    def chain(self) -> list[ListedGroup]:
        """The group that is meant, and those above it up to the top."""
        return self.top.chain(self.path)


def open_target(
    target: Target, group: str | None = None, *, version: str | None = None, everything: bool = False
) -> Opened:
    """Find and list what is to be opened.

    Parameters
    ----------
    target : str, Group or RemoteArray
        An address, or an object that was opened.
    group : str, optional
        Path of a group in it.
    version : str, optional
        Of the file or array; another one is refused.
    everything : bool
        List all groups, not only those on the way.

    Raises
    ------
    InvalidPathError, RootNotFoundError, DatasetNotFoundError, DatasetChangedError, SourceUnavailableError
    """
    if isinstance(target, Opened):
        return target
    session, root, entry, source = _find(target)
    if version is not None and version != _version_of(session, root, entry):
        raise DatasetChangedError(f"{source} is not of version {version} any more: open it again")
    names = _group_names(group)
    if entry.kind == "array":
        if names:
            raise DatasetNotFoundError(f"{source} is an array and has no group {group!r}")
        above = parent(entry.path)
        top = _file_of(session, root, entry) if is_hdf5(entry) else above
        inside = tuple(names_below(above, top))
        opened = Opened(
            session, root, _list(session, root, top, inside, everything), inside, dataset_name(entry), source
        )
        siblings = opened.chain()[0].datasets
        listed = siblings.get(opened.array)
        if listed is None or listed.version != entry.version:
            raise DatasetChangedError(f"{source} changed while it was opened: open it again")
        if listed.dims is None and not is_hdf5(listed):
            siblings[opened.array] = replace(listed, dims=tuple(f"dim_{n}" for n in range(len(shape_of(listed)))))
        return opened
    if entry.kind != "group":
        raise UnsupportedDatasetError(f"{source} cannot be opened as a dataset: {_kind(entry)}")
    top = _file_of(session, root, entry)
    inside = (*names_below(entry.path, top), *names)
    found = _list(session, root, top, inside, everything, entry if top == entry.path else None)
    opened = Opened(session, root, found, inside, "", source)
    try:
        opened.chain()
    except KeyError as error:
        raise DatasetNotFoundError(f"no group {error.args[0]!r} in {root}/{top}: {_choices(found, inside)}") from None
    return opened


def _kind(entry: Entry) -> str:
    return entry.reason or f"it is a {entry.kind}"


def _choices(top: ListedGroup, inside: tuple[str, ...]) -> str:
    group = top
    for name in inside:
        if name not in group.groups:
            break
        group = group.groups[name]
    names = ", ".join(map(repr, list(group.groups)[:10]))
    return f"there are {names}" if names else "there are no groups"


def _group_names(group: str | None) -> tuple[str, ...]:
    if not group:
        return ()
    try:
        return tuple(n for n in parse_path(group.strip("/")).split("/") if n)
    except InvalidPathError:
        raise DatasetNotFoundError(f"no group {group!r}: a group is named by its path, such as 'a/b'") from None


def _find(target: Target) -> tuple[Session, str, Entry, str]:
    if isinstance(target, (Group, RemoteArray)):
        session, root, entry = target._session, target.root, target.entry
        if isinstance(target, Group) and not entry.attrs_inline:
            entry = session.service.entry(root, entry.path)
        return session, root, entry, target.address
    if not target.startswith(SCHEMES):
        raise InvalidPathError(
            f"not an address: {target[:200]!r}; write cat2://ROOT/PATH or cat2http://HOST/-/ROOT/PATH"
        )
    address = parse_address(target)
    session = find_session(address.url or None)
    with suggesting(session.service, address.root, address.path):
        session.follow(address.root)
        return session, address.root, session.service.entry(address.root, address.path), str(address)


def _version_of(session: Session, root: str, entry: Entry) -> str:
    if entry.version or not is_hdf5(entry):
        return entry.version
    return session.service.entry(root, _file_of(session, root, entry)).version


def _file_of(session: Session, root: str, entry: Entry) -> str:
    """Path of the file that a group or array is in, or of the group itself when it is a directory."""
    if not is_hdf5(entry) or entry.media_type == HDF5_MEDIA_TYPE:
        return entry.path
    inside = str(entry.storage["hdf5"]).strip("/")
    if not inside:
        return entry.path
    path = entry.path if entry.kind == "group" else entry.path.removesuffix(".b2nd")
    if path == inside or path.endswith(f"/{inside}"):
        return path[: len(path) - len(inside)].rstrip("/")
    # It is reached through a link.
    while path:
        path = parent(path)
        if session.service.entry(root, path).media_type == HDF5_MEDIA_TYPE:
            break
    return path


def _list(
    session: Session, root: str, top: str, inside: tuple[str, ...], everything: bool, entry: Entry | None = None
) -> ListedGroup:
    """List a file or directory as deep as is needed."""
    query = CatalogQuery(under=top, depth=0 if everything else len(inside) + 1, limit=MAX_PAGE)
    entries = [_complete(session, root, e) for e in session.service.entries(root, query)]
    if entry is None:
        entry = next((e for e in entries if e.path == top), None)
    if entry is None:
        entry = session.service.entry(root, top) if top else Entry("", "group")
    return build_tree(_complete(session, root, entry), [e for e in entries if e.path != top])


def _complete(session: Session, root: str, entry: Entry) -> Entry:
    return session.complete(root, entry) if entry.kind in ("group", "array") else entry


def count_dimensions(opened: Opened, phony_dims: PhonyDims, everything: bool) -> None:
    """Count the dimensions of all groups that are needed, in h5netcdf's order."""
    counter = DimensionCounter(phony_dims)
    chain = opened.chain()
    walked = [group for _, group in opened.top.walk()] if phony_dims == "sort" else []
    below = [group for _, group in chain[0].walk()] if everything else []
    seen: set[int] = set()
    for group in [*walked, *reversed(chain), *below]:
        if id(group) not in seen:
            seen.add(id(group))
            counter.count(group)
    opened.nphony = counter.nphony


@dataclass(slots=True)
class Undecoded:
    """One group, before its variables are decoded."""

    variables: dict[str, xr.Variable]
    attrs: dict[str, Any]
    encoding: dict[str, Any]

    def decode(self, decoding: Decoding, drop: frozenset[str]) -> xr.Dataset:
        """The dataset: coordinates found, indexes left to xarray."""
        variables, attrs, names = conventions.decode_cf_variables(
            self.variables, self.attrs, drop_variables=drop, **decoding.keywords()
        )
        variables = {name: versioned(variable) for name, variable in variables.items()}
        coords = {name: v for name, v in variables.items() if name in names or v.dims == (name,)}
        data = {name: v for name, v in variables.items() if name not in coords}
        dataset = xr.Dataset(data, coords=xr.Coordinates(coords, indexes={}), attrs=attrs)
        dataset.encoding = dict(self.encoding)
        return dataset


def prepare(
    opened: Opened,
    chain: list[ListedGroup],
    drop: frozenset[str],
    first: FirstReads,
    *,
    decode_vlen_strings: bool = True,
) -> Undecoded:
    """The variables of one group; ``chain`` is that group and those above it."""
    group = chain[0]
    variables: dict[str, xr.Variable] = {}
    arrays: dict[str, LazyArray] = {}
    for inside, entry in _chosen(group, opened.array, drop).items():
        name = inside.replace("_nc4_non_coord_", "")
        reason = _unreadable(entry)
        if reason is not None:
            if reason:
                opened.skipped[entry.path] = reason
            continue
        variables[name], arrays[name] = make_variable(
            opened.session,
            opened.root,
            entry,
            inside,
            chain,
            opened.source,
            first,
            decode_vlen_strings=decode_vlen_strings,
        )
    _plan_first_reads(variables, arrays, first)
    if not is_hdf5(group.entry):
        told = group.entry.storage.get("unlimited_dims")
        encoding = {"source": opened.source} | ({"unlimited_dims": set(told)} if told else {})
        return Undecoded(variables, blosc2_attributes(group.entry), encoding)
    unlimited = {name for name, d in group.dimensions.items() if d.is_unlimited}
    encoding = {"unlimited_dims": unlimited, "source": opened.source}
    return Undecoded(variables, netcdf_attributes(group.entry), encoding)


def make_datasets(
    opened: Opened, decoding: Decoding, drop: frozenset[str], *, decode_vlen_strings: bool = True
) -> dict[str, xr.Dataset]:
    """Datasets of the group that is meant and of all below it, by path; what is read first comes in one request."""
    first = FirstReads()
    datasets: dict[str, xr.Dataset] = {}
    pending = [("/", opened.chain())]
    prepared = []
    while pending:
        path, chain = pending.pop()
        prepared.append((path, prepare(opened, chain, drop, first, decode_vlen_strings=decode_vlen_strings)))
        below = [(f"{path.rstrip('/')}/{name}", [g, *chain]) for name, g in chain[0].groups.items()]
        pending += reversed(below)
    for path, undecoded in prepared:
        datasets[path] = undecoded.decode(decoding, drop)
    return datasets


def _chosen(group: ListedGroup, array: str, drop: frozenset[str]) -> dict[str, Entry]:
    """Datasets that are wanted: all, or one with what it needs as coordinates."""
    found = {n: e for n, e in group.datasets.items() if n.replace("_nc4_non_coord_", "") not in drop}
    if not array:
        return found
    entry = group.datasets[array]
    lengths = dict(zip(entry.dims or (), shape_of(entry), strict=False))
    named = netcdf_attributes(entry).get("coordinates", "")
    wanted = {*lengths, *(named.split() if isinstance(named, str) else ())}
    chosen = {array: entry}
    for name, other in found.items():
        # Coordinates of it, where they are as long as it is.
        sizes = zip(other.dims or ("",), shape_of(other), strict=False)
        if name in wanted and name != array and all(lengths.get(dim) == n for dim, n in sizes):
            chosen[name] = other
    return chosen


def _unreadable(entry: Entry) -> str | None:
    """Why a dataset is left out; empty when that is no loss, None when it is not left out."""
    if entry.storage.get("dimensions", {}).get("no_variable") or "committed_type" in entry.storage:
        return ""
    if entry.kind == "array":
        missing = entry.storage.get("missing_sources")
        if missing:
            return f"a virtual dataset whose source {missing[0]!r} is missing"
        return None
    if entry.kind == "link":
        return f"a link that is not followed: {entry.reason}"
    return entry.reason or "it cannot be read"


def _plan_first_reads(variables: Mapping[str, xr.Variable], arrays: Mapping[str, LazyArray], first: FirstReads) -> None:
    """Have index coordinates read whole, and of other times the first and last items, which decoding looks at."""
    bounds = {str(v.attrs.get(key)) for v in variables.values() for key in ("bounds", "climatology") if key in v.attrs}
    for name, variable in variables.items():
        array = arrays[name].array
        if not array.size or arrays[name].shape != array.shape:
            continue
        if array.dtype == object:
            # Decoding looks at the first item of objects, and at all strings.
            whole = variable.encoding["dtype"] is str
            first.add(array, Selection.whole(array.shape) if whole else _corner(array.shape))
            continue
        is_index = variable.dims[:1] == (name,) and (variable.ndim == 1 or array.dtype == "S1")
        if first.nbytes > MAX_ALL_FIRST_NBYTES:
            continue
        if is_index and array.nbytes <= MAX_FIRST_NBYTES:
            first.add(array, Selection.whole(array.shape))
        elif _is_time(variable) or name in bounds:
            first.add(array, _corner(array.shape))
            first.add(array, Selection(tuple(AxisRange(n - 1, n) for n in array.shape)))


def _corner(shape: tuple[int, ...]) -> Selection:
    return Selection(tuple(AxisRange(0, 1) for _ in shape))


def _is_time(variable: xr.Variable) -> bool:
    units = variable.attrs.get("units")
    return isinstance(units, str) and " since " in units


def open_dataset(
    target: Target,
    group: str | None,
    decoding: Decoding,
    drop: frozenset[str],
    *,
    phony_dims: PhonyDims = "access",
    decode_vlen_strings: bool = True,
    version: str | None = None,
) -> xr.Dataset:
    """One group, or one array with its coordinates; see ``backend``."""
    opened = open_target(target, group, version=version, everything=phony_dims == "sort")
    count_dimensions(opened, phony_dims, everything=False)
    undecoded = prepare(opened, opened.chain(), drop, FirstReads(), decode_vlen_strings=decode_vlen_strings)
    warn_of_skipped(opened)
    return undecoded.decode(decoding, drop)


def open_groups(
    target: Target,
    group: str | None,
    decoding: Decoding,
    drop: frozenset[str],
    *,
    phony_dims: PhonyDims = "access",
    decode_vlen_strings: bool = True,
    version: str | None = None,
) -> dict[str, xr.Dataset]:
    """Every group from one on, by its path; see ``backend``."""
    opened = open_target(target, group, version=version, everything=True)
    count_dimensions(opened, phony_dims, everything=True)
    datasets = make_datasets(opened, decoding, drop, decode_vlen_strings=decode_vlen_strings)
    warn_of_skipped(opened)
    if group:  # relative to it, as xarray's own engines name them
        return {path.lstrip("/") or ".": dataset for path, dataset in datasets.items()}
    return datasets


def to_data_array(target: RemoteArray, **options: Any) -> xr.DataArray:
    """See ``RemoteArray.to_xarray``."""
    name = dataset_name(target.entry)
    if target._fields:
        lazy = indexing.LazilyIndexedArray(LazyArray(target))
        named = target.dims or ()
        dims = [*named, *(f"dim_{axis}" for axis in range(len(named), target.ndim))]
        return xr.DataArray(xr.Variable(dims, lazy), name=f"{name}.{target._fields[-1]}")
    opened: Any = open_target(target)
    dataset = xr.open_dataset(opened, engine="caterva2", **options)
    return dataset[name.replace("_nc4_non_coord_", "")]


def warn_of_skipped(opened: Opened) -> None:
    """Name what was left out, and why."""
    if opened.skipped:
        listed = [f"{path!r} ({reason})" for path, reason in opened.skipped.items()]
        more = f", and {len(listed) - 20} more" if len(listed) > 20 else ""
        warnings.warn(
            f"not opened of {opened.source}: {', '.join(listed[:20])}{more}", UserWarning, stacklevel=_users_level()
        )


def _users_level() -> int:
    """How many calls up the user's own code is."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _OURS:
        level, frame = level + 1, frame.f_back
    return level


def parse_phony_dims(text: str | None) -> PhonyDims:
    """How axes without names are called.

    Raises
    ------
    ConfigError
    """
    if text not in (None, "access", "sort"):
        raise ConfigError(f"no such phony_dims: {text!r}; it is 'access' or 'sort'")
    return "sort" if text == "sort" else "access"


def dropped(names: str | Iterable[str] | None) -> frozenset[str]:
    """``drop_variables`` as a set."""
    return frozenset([names] if isinstance(names, str) else names or ())

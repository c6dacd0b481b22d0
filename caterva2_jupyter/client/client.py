"""``connect`` and ``Client``: where everything starts for users of the library and of the command line."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import numpy as np

from ..core.catalog import CatalogPage, CatalogQuery
from ..core.metadata import Entry
from ..core.paths import join, whole_address
from ..errors import Caterva2Error, ConfigError, NotFoundError, RequestError
from .address import DatasetAddress, parse_address, split_for
from .area_service import AreaService
from .cache_policy import CachePolicy, parse_cache_policy
from .cache_service import CacheService
from .changes import Change, Watch, changes_of
from .discovery import find_service
from .group import Group, RemoteObject, open_path
from .lazy_expression import LazyExpression, from_text
from .progress import Progress, find_bars
from .remote_array import RemoteArray
from .representation import html_table
from .service import RootStatus, Service
from .session import DEFAULT_MAX_NBYTES, Session
from .showing import shown
from .suggestions import suggesting
from .transport import Timeouts, Transport
from .user_service import UserService
from .writable import warn_of_skipped

__all__ = ["Client", "connect", "open_address"]


def connect(
    url: str | None = None,
    *,
    token: str | None = None,
    username: str | None = None,
    password: str | None = None,
    max_nbytes: int = DEFAULT_MAX_NBYTES,
    cache: CachePolicy = "auto",
    short_circuit: bool = True,
    connect_timeout_s: float = 5.0,
    progress_timeout_s: float = 60.0,
    tls_ca: str | None = None,
    progress: bool | None = None,
) -> Client:
    """A client of a subscriber (or of one publisher). No request is made yet.

    Parameters
    ----------
    url : str, optional
        Base URL, such as ``http://localhost:8002``, ``unix:/path/to/socket`` or the URL that Jupyter printed.
        Without it: ``CATERVA2_URL``; the Jupyter server that the kernel belongs to; ``caterva2.toml``;
        ``http://localhost:8002``.
    token : str, optional
        Token for it; by default the one that was found along with the address, which is given to no other.
    username, password : str, optional
        Of a user, where the subscriber has users.
    max_nbytes : int
        Decoded bytes above which ``numpy.asarray(array)`` and ``file.read()`` refuse; 1 GiB by default.
    cache : {"auto", "fill", "bypass"}
        ``auto``: a read is answered by what moves fewer bytes, the exact values or the blocks that hold them, which
        are kept; where reads come back, blocks are fetched. ``fill``: always blocks. ``bypass``: exact values
        wherever they can be had (up to 8 MiB), no blocks for the cache.
    short_circuit : bool
        Read what is cached from the subscriber's files, past the subscriber, where they are on this machine.
    connect_timeout_s, progress_timeout_s : float
        Seconds until a connection stands; longest silence in an answer.
    tls_ca : str, optional
        File with certificates to trust besides the system's.
    progress : bool, optional
        Show progress bars (of tqdm) for downloads, uploads, prefetches, reductions and large slices that take more than
        a second, unless they are given a callback. By default in notebooks, where tqdm is installed.

    Returns
    -------
    Client

    Raises
    ------
    ConfigError
        When the address, or what was found in its place, cannot be used, or there is no such cache policy.

    Examples
    --------
    >>> with cat2.connect() as client:
    ...     sorted(client.roots)
    ['@personal', '@public', '@shared', 'foo']
    >>> cat2.connect("http://localhost:8002")
    <Client http://localhost:8002>
    """
    _check_numbers(max_nbytes, connect_timeout_s, progress_timeout_s)
    found = find_service(url, token, username, password)
    timeouts = Timeouts(connect_timeout_s, progress_timeout_s)
    transport = Transport(found.url, found.credentials, timeouts, found.tls_ca if tls_ca is None else tls_ca)
    policy, bars = parse_cache_policy(cache), find_bars(progress)
    return Client(Session(Service(transport), max_nbytes, policy, short_circuit, bars))


def _check_numbers(max_nbytes: int, connect_timeout_s: float, progress_timeout_s: float) -> None:
    if type(max_nbytes) is bool or not isinstance(max_nbytes, (int, np.integer)) or max_nbytes < 0:
        raise ConfigError(f"max_nbytes is a number of bytes, as 1 << 30, not {max_nbytes!r}")
    for name, value in (("connect_timeout_s", connect_timeout_s), ("progress_timeout_s", progress_timeout_s)):
        if type(value) is bool or not isinstance(value, (int, float, np.number)) or not value > 0:
            raise ConfigError(f"{name} is a number of seconds over 0, not {value!r}")


def open_address(address: str) -> RemoteObject:
    """Open a dataset or group by its address alone.

    Parameters
    ----------
    address : str
        ``cat2://ROOT/PATH`` (the service is found as by ``connect()``), ``cat2http(s)://HOST/BASE/-/ROOT/PATH``,
        or ``ROOT/PATH``.

    Returns
    -------
    Group, RemoteArray, RemoteFile or UnsupportedDataset

    Raises
    ------
    InvalidPathError, RootNotFoundError, DatasetNotFoundError, SourceUnavailableError

    Examples
    --------
    >>> cat2.open_address("cat2://foo/ds-1d")
    <RemoteArray foo/ds-1d.b2nd shape=(1000,) dtype=int64>
    """
    parsed = parse_address(address)
    client = connect(parsed.url or None)
    return client[whole_address(parsed.root, parsed.path)]


class Client:
    """What a service offers: roots, and all that is in them. Made by ``connect``.

    ``client["foo"]`` is the root ``foo`` as a `Group` (followed on demand), ``client["foo/dir/x"]`` what is at
    that path. Use it in a ``with`` block, or ``close()`` it, to let its connections go; it works again after.
    It may be shared by threads, used after a fork, and pickled (without credentials, which are found again).

    Examples
    --------
    >>> with cat2.connect() as client:
    ...     client["foo/ds-1d.b2nd"][:3]
    array([0, 1, 2])
    >>> client.close()
    >>> client.roots["foo"].online
    True
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def __reduce__(self) -> tuple[type[Client], tuple[Session]]:
        return Client, (self._session,)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close connections and let worker threads go."""
        self._session.close()

    def __repr__(self) -> str:
        return f"<Client {self._session.service.url}>"

    @property
    def url_base(self) -> str:
        """Base URL of the service."""
        return self._session.service.url

    @property
    def roots(self) -> Mapping[str, RootStatus]:
        """Every root that the service knows, by name, with its status now.

        Raises
        ------
        SourceUnavailableError, DeadlineError, AuthenticationError
        """
        return self._session.service.roots()

    @property
    def cache(self) -> CacheService:
        """The cache of the service: what is in it, checking it, clearing, pinning.

        Examples
        --------
        >>> client.cache.status("foo")["quota_nbytes"]
        10737418240
        """
        return CacheService(self._session.service.transport)

    @property
    def users(self) -> UserService:
        """The users of a stand-alone service: who we are, and for superusers adding and removing others.

        Examples
        --------
        >>> client.users.current()["name"]
        'me@example.com'
        """
        return UserService(self._session.service.transport)

    def health(self) -> Mapping[str, Any]:
        """What the service says of itself; needs no credentials.

        Returns
        -------
        mapping
            ``status`` (``"ok"``) and ``service`` (``"subscriber"``, ``"publisher"`` or ``"broker"``).

        Raises
        ------
        SourceUnavailableError
            When nobody answers.

        Examples
        --------
        >>> client.health()
        {'status': 'ok', 'service': 'subscriber'}
        """
        return self._session.service.health()

    def __getitem__(self, address: str) -> RemoteObject:
        """Open a root, group or dataset.

        Parameters
        ----------
        address : str
            ``ROOT`` or ``ROOT/PATH``; the suffix ``.b2nd`` may be left out.

        Returns
        -------
        Group, RemoteArray, RemoteFile or UnsupportedDataset

        Raises
        ------
        RootNotFoundError, DatasetNotFoundError, InvalidPathError

        Examples
        --------
        >>> client["foo/dir1"], client["foo/ds-1d"]
        (<Group foo/dir1>, <RemoteArray foo/ds-1d.b2nd shape=(1000,) dtype=int64>)
        """
        root, path = self._split(address)
        with suggesting(self._session.service, root, path):
            self._session.follow(root)
            return open_path(self._session, root, path) if path else self._root(root)

    def __iter__(self) -> Iterator[str]:
        """The names of the roots."""
        return iter(self.roots)

    def _ipython_key_completions_(self) -> list[str]:
        """What may follow ``client["``: roots."""
        return list(self.roots)

    def _root(self, root: str) -> Group:
        return Group(self._session, root, self._session.service.entry(root, ""))

    def _split(self, address: str) -> tuple[str, str]:
        return split_for(self.url_base, address)

    def __contains__(self, address: object) -> bool:
        if not isinstance(address, str):
            return False
        try:
            root, path = self._split(address)
            return self._session.service.exists(root, path) if path else root in self.roots
        except NotFoundError:
            return False

    def follow(self, root: str) -> None:
        """Have the subscriber follow a root: keep its catalog and hear of changes.

        Parameters
        ----------
        root : str
            Name of a root that the broker, or a publisher, tells.

        Raises
        ------
        RootNotFoundError

        Examples
        --------
        >>> client.follow("foo")
        >>> client.roots["foo"].followed
        True
        """
        name = self._split(root)[0]
        with suggesting(self._session.service, name):
            self._session.service.follow(name)

    def unfollow(self, root: str) -> None:
        """Have the subscriber stop following a root.

        Parameters
        ----------
        root : str

        Raises
        ------
        RootNotFoundError, AccessDeniedError

        Examples
        --------
        >>> client.unfollow("foo")
        """
        self._session.unfollow(self._split(root)[0])

    def lazyexpr(
        self, expression: str, operands: Mapping[str, Any], name: str | None = None
    ) -> LazyExpression | RemoteArray:
        """An expression over arrays, computed where it is indexed.

        Parameters
        ----------
        expression : str
            Operators, numbers, functions and reductions of NumPy over names: ``"a + sin(b[1:]) - mean(a, axis=0)"``.
            It is parsed against a list of what is allowed, and never evaluated by Python.
        operands : mapping
            Arrays by name, of any root: opened ones, or their addresses (``ROOT/PATH``).
        name : str, optional
            Store it at the subscriber under this name: ``@public/NAME``, or ``NAME`` in ``@personal``. What is there is
            replaced.

        Returns
        -------
        LazyExpression
            Computed here, block by block; with ``name`` a RemoteArray, which the subscriber computes.

        Raises
        ------
        RequestError
            When it is not an expression, has something in it that is not allowed, or its operands do not go together.

        Examples
        --------
        >>> client.lazyexpr("a + sin(b)", {"a": client["foo/ds-1d"], "b": "foo/ds-1d"})[:3]
        array([0.        , 1.84147098, 2.90929743])
        """
        opened = {key: self[value] if isinstance(value, str) else value for key, value in operands.items()}
        for key, value in opened.items():
            if not isinstance(value, (RemoteArray, np.ndarray)):
                raise RequestError(f"operand {key} is not an array but {type(value).__name__}")
        made = from_text(expression, opened)
        if name is None:
            return made
        return made.save(name if name.startswith("@") else f"@personal/{name}", overwrite=True)

    def changes(self, address: str) -> Iterator[Change]:
        """What happens at a root, group or dataset from now on, without end.

        Parameters
        ----------
        address : str
            ``ROOT`` or ``ROOT/PATH``.

        Yields
        ------
        Change
            Interruptions come as ``offline``; what was missed then is told after them.

        Raises
        ------
        RootNotFoundError, AuthenticationError

        Examples
        --------
        >>> changes = client.changes("foo/dir2")  # for change in changes: print(change.kind, change.path)
        >>> changes.close()
        """
        root, path = self._followed(address)
        return changes_of(self._session.service, root, path)

    def _followed(self, address: str) -> tuple[str, str]:
        """Root and path of an address, with the root followed."""
        root, path = self._split(address)
        with suggesting(self._session.service, root):
            self._session.follow(root)
        return root, path

    def watch(self, address: str, callback: Callable[[Change], object]) -> Watch:
        """Have a function called on each change of a root, group or dataset, in a thread, until ``stop()``.

        Parameters
        ----------
        address : str
            ``ROOT`` or ``ROOT/PATH``.
        callback : callable
            Called with each `Change`, in the thread of the watch.

        Raises
        ------
        RootNotFoundError, InvalidPathError

        Examples
        --------
        >>> changes = []
        >>> watch = client.watch("foo", changes.append)
        >>> watch.is_running
        True
        >>> watch.stop()
        """
        if not callable(callback):
            raise TypeError(f"watch() calls a function with each change: {type(callback).__name__} is none")
        root, path = self._followed(address)
        return Watch(self._session.service, root, path, callback)

    def announce(self, address: str) -> None:
        """Have a root's publisher look now whether something changed at a path.

        Parameters
        ----------
        address : str
            ``ROOT/PATH`` of a file or directory.

        Raises
        ------
        RootNotFoundError, InvalidPathError, SourceUnavailableError

        Examples
        --------
        >>> client.announce("foo/dir1/ds-2d.b2nd")
        """
        self._session.service.announce(*self._split(address))

    def entry(self, address: str) -> Entry:
        """The catalog entry of a dataset or group, with all its attributes.

        Parameters
        ----------
        address : str
            ``ROOT/PATH``; the suffix ``.b2nd`` may be left out.

        Raises
        ------
        RootNotFoundError, DatasetNotFoundError

        Examples
        --------
        >>> entry = client.entry("foo/dir1/ds-2d")
        >>> entry.kind, entry.geometry.shape, entry.geometry.chunks, entry.geometry.dtype
        ('array', (10, 20), (5, 5), dtype('uint16'))
        """
        root, path = self._split(address)
        with suggesting(self._session.service, root, path):
            return self._session.service.entry(root, path)

    def metadata(self, address: str) -> dict[str, Any]:
        """The same as the JSON that the service sent.

        Parameters
        ----------
        address : str
            As for `entry`.

        Raises
        ------
        As `entry`.

        Examples
        --------
        >>> client.metadata("foo/dir1/ds-2d")["geometry"]["shape"]
        [10, 20]
        """
        return self._session.service.entry_json(*self._split(address))

    def entries(self, address: str, *, depth: int = 0, q: str = "") -> Iterator[Entry]:
        """Catalog entries below a root or group, ascending by path.

        Parameters
        ----------
        address : str
        depth : int
            Levels below it; 1 are direct children, 0 is no limit.
        q : str
            Words that all have to hold, see ``core.catalog.parse_filter``.

        Raises
        ------
        RootNotFoundError, DatasetNotFoundError

        Examples
        --------
        >>> [entry.path for entry in client.entries("foo", depth=1, q="kind:file")]
        ['README.md', 'ds-hello.b2frame']
        """
        root, path = self._split(address)
        with suggesting(self._session.service, root, path):
            yield from self._session.service.entries(root, CatalogQuery(under=path, depth=depth, q=q))

    def page(self, address: str, *, depth: int = 1, after: str = "", limit: int = 1000, q: str = "") -> CatalogPage:
        """One page of a listing: for those who show it while it is long.

        Parameters
        ----------
        address : str
        depth : int
            As for ``entries``.
        after : str
            ``next`` of the page before; empty for the first one.
        limit : int
            Entries at most.
        q : str
            As for ``entries``.

        Raises
        ------
        RootNotFoundError, DatasetNotFoundError, RequestError

        Examples
        --------
        >>> page = client.page("foo", limit=2)
        >>> [entry.path for entry in page.entries()], page.next
        (['README.md', 'dir1'], 'dir1')
        """
        root, path = self._split(address)
        with suggesting(self._session.service, root, path):
            return self._session.service.page(
                root, CatalogQuery(under=path, depth=depth, after=after, limit=limit, q=q)
            )

    def download(
        self, address: str, path: str | os.PathLike[str] | None = None, progress: Progress | None = None
    ) -> Path:
        """Write a dataset to a local file; see ``RemoteArray.download``.

        Parameters
        ----------
        address : str
            ``ROOT/PATH``.
        path : str or os.PathLike, optional
            File to write, or a directory to write into.
        progress : callable, optional
            Called with ``(done_nbytes, total_nbytes)``.

        Raises
        ------
        As ``RemoteArray.download``.

        Examples
        --------
        >>> client.download("foo/dir2/ds-4d.b2nd", "copy.b2nd")
        PosixPath('copy.b2nd')
        """
        return self[address].download(path, progress)

    def upload(
        self, obj: object, address: str, progress: Progress | None = None, *, overwrite: bool = False
    ) -> RemoteObject:
        """Put something into an area; see ``Group.upload``.

        Parameters
        ----------
        address : str
            ``AREA/PATH``; a trailing slash, or an area alone, keeps the name that the object has.

        Raises
        ------
        As ``Group.upload``.

        Examples
        --------
        >>> client.upload(np.arange(4), "@public/steps.b2nd")
        <RemoteArray @public/steps.b2nd shape=(4,) dtype=int64>
        """
        root, path = self._split(address.rstrip("/"))
        with suggesting(self._session.service, root):
            area = self._root(root)
        return area.upload(obj, path + ("/" if address.endswith("/") and path else ""), progress, overwrite=overwrite)

    def remove(self, address: str) -> None:
        """Remove a file or directory from an area; see ``RemoteDataset.remove``.

        Parameters
        ----------
        address : str
            ``AREA/PATH``.

        Raises
        ------
        As ``RemoteArray.remove``.

        Examples
        --------
        >>> array = client.upload(np.arange(4), "@public/steps.b2nd", overwrite=True)
        >>> client.remove("@public/steps.b2nd")
        """
        self._areas.remove(join(*self._split(address)))

    def move(self, source: str, goal: str, *, overwrite: bool = False) -> RemoteObject:
        """Move a file or directory within or between areas; see ``RemoteDataset.move``.

        Parameters
        ----------
        source : str
            Address ``AREA/PATH``.
        goal : str
            Address ``AREA/PATH``; a directory that is there, or a trailing slash, keeps the name.
        overwrite : bool
            May a file that is there be replaced?

        Raises
        ------
        As ``RemoteArray.move``.

        Examples
        --------
        >>> array = client.upload(np.arange(4), "@public/steps.b2nd", overwrite=True)
        >>> client.move("@public/steps.b2nd", "@personal/steps.b2nd", overwrite=True)
        <RemoteArray @personal/steps.b2nd shape=(4,) dtype=int64>
        """
        return self[self._areas.move(join(*self._split(source)), goal, overwrite=overwrite)]

    def copy(self, source: str, goal: str, *, overwrite: bool = False) -> RemoteObject:
        """Copy a dataset, group or root into an area; see ``RemoteDataset.copy``.

        Parameters
        ----------
        source : str
            Address of anything that the service has.
        goal : str
            Address ``AREA/PATH``; a directory that is there, or a trailing slash, keeps the name.
        overwrite : bool
            May a file that is there be replaced?

        Raises
        ------
        As ``RemoteArray.copy``.

        Examples
        --------
        >>> client.copy("foo/dir1/ds-2d.b2nd", "@personal/", overwrite=True)
        <RemoteArray @personal/ds-2d.b2nd shape=(10, 20) dtype=uint16>
        """
        address, skipped = self._areas.copy(join(*self._split(source)), goal, overwrite=overwrite)
        warn_of_skipped(skipped)
        return self[address]

    def mkdir(self, address: str) -> Group:
        """Make a directory in an area; see ``Group.mkdir``.

        Parameters
        ----------
        address : str
            ``AREA/PATH``.

        Raises
        ------
        As ``Group.mkdir``.

        Examples
        --------
        >>> client.mkdir("@personal/runs/1")
        <Group @personal/runs/1>
        """
        made = self[self._areas.make_directory(address)]
        assert isinstance(made, Group)
        return made

    def browse(self, address: str = "") -> Any:
        """A browser of roots and datasets in the output of a cell.

        It has a tree, a filter, what is known of what is chosen and a preview. "Use as variable" puts the opened object
        into the notebook's variables; "Download" writes it to a file.

        Parameters
        ----------
        address : str
            ``ROOT`` or ``ROOT/PATH`` to begin at; all roots by default.

        Returns
        -------
        caterva2_jupyter.widgets.browser.Browser
            A widget; ``selected`` is what is chosen in it.

        Raises
        ------
        ConfigError
            When ipywidgets and anywidget are not installed.

        Examples
        --------
        >>> browser = client.browse("foo")
        >>> browser.wait()
        >>> browser.close()
        """
        return shown("browse", "browser", "browse", self, address)

    @property
    def _areas(self) -> AreaService:
        return AreaService(self._session.service.transport)

    def url(self, address: str) -> str:
        """URL at which a browser, or a program that speaks the older protocol, gets a dataset.

        Parameters
        ----------
        address : str
            ``ROOT/PATH``.

        Raises
        ------
        InvalidPathError

        Examples
        --------
        >>> client.url("foo/ds-1d").removeprefix(client.url_base)
        '/api/fetch/foo/ds-1d'
        """
        root, path = self._split(address)
        return f"{self.url_base}/api/fetch/{quote(f'{root}/{path}', safe='/@')}"

    def address(self, address: str) -> str:
        """The address of a dataset that names this service too, for ``open_address``.

        Parameters
        ----------
        address : str
            ``ROOT/PATH``.

        Raises
        ------
        InvalidPathError

        Examples
        --------
        >>> cat2.connect("http://localhost:8002").address("foo/ds-1d")
        'cat2http://localhost:8002/-/foo/ds-1d'
        """
        return str(DatasetAddress(self.url_base, *self._split(address)))

    def _repr_html_(self) -> str:
        """The roots, for notebooks; every text in it is escaped."""
        try:
            roots = self.roots
        except Caterva2Error as error:
            return html_table(repr(self)[1:-1], {"cannot be listed": str(error)})
        rows = {name: str(status).removeprefix(name).strip(" ()") or "known" for name, status in roots.items()}
        return html_table(repr(self)[1:-1], rows)

"""What every remote object holds: the service it is read from, the reader, and the limit on whole arrays.

One per ``Client``, shared by all that it opens. Pickles as the service's address; what is loaded from pickles shares
one session per service in each process.
"""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache

from ..core.metadata import Entry
from ..errors import AccessDeniedError, AuthenticationError
from .cache_policy import CachePolicy
from .discovery import find_credentials, find_service
from .progress import Bars
from .reader import Reader
from .service import Service
from .transport import Credentials, NoSuchRouteError, Timeouts, Transport

__all__ = ["DEFAULT_MAX_NBYTES", "Session", "find_session"]

DEFAULT_MAX_NBYTES = 1 << 30


class Session:
    """A service and how it is read.

    Parameters
    ----------
    service : Service
    max_nbytes : int
        Decoded bytes above which an array is not read whole without being asked in so many words.
    cache : {"auto", "fill", "bypass"}
        How reads use the service's cache unless an array says otherwise.
    short_circuit : bool
        Read the service's cache files themselves where they are on this machine.
    bars : callable, optional
        Makes progress bars, for transfers that no callback was given for. Not pickled.
    """

    def __init__(
        self,
        service: Service,
        max_nbytes: int = DEFAULT_MAX_NBYTES,
        cache: CachePolicy = "auto",
        short_circuit: bool = True,
        bars: Bars | None = None,
    ) -> None:
        self.service = service
        self.max_nbytes = max_nbytes
        self.cache = cache
        self.short_circuit = short_circuit
        self.bars = bars
        self.reader = Reader(service, short_circuit)
        self._followed: set[str] = set()

    def __reduce__(self) -> tuple[object, tuple[str, Timeouts, str, int, CachePolicy, bool]]:
        transport = self.service.transport
        how = (transport.timeouts, transport.tls_ca, self.max_nbytes, self.cache, self.short_circuit)
        return _find_again, (transport.url, *how)

    def close(self) -> None:
        """Close connections and let the worker threads go."""
        self.reader.close()
        self.service.transport.close()

    def follow(self, root: str) -> None:
        """Have the service follow a root, once, where it follows roots and we may say so.

        Raises
        ------
        RootNotFoundError
        """
        if root in self._followed or root.startswith("@"):
            return
        # A publisher follows nothing, and who may only read can do so all the same.
        with suppress(NoSuchRouteError, AccessDeniedError, AuthenticationError):
            self.service.follow(root)
        self._followed.add(root)

    def unfollow(self, root: str) -> None:
        """Have the service forget a root, until it is asked for again."""
        self.service.unfollow(root)
        self._followed.discard(root)

    def complete(self, root: str, entry: Entry) -> Entry:
        """The entry with all its attributes: asked for when they were too large for a listing."""
        if entry.attrs_inline:
            return entry
        return self.service.entry(root, entry.path)


def find_session(url: str | None = None) -> Session:
    """The session that this process has with a service, found as ``connect()`` finds it.

    Raises
    ------
    ConfigError
    """
    found = find_service(url)
    return _shared(found.url, found.credentials, Timeouts(), found.tls_ca, DEFAULT_MAX_NBYTES, "auto", True)


def _find_again(
    url: str, timeouts: Timeouts, tls_ca: str, max_nbytes: int, cache: CachePolicy, short_circuit: bool
) -> Session:
    """The session of a pickle: credentials are those that this process finds."""
    return _shared(url, find_credentials(url), timeouts, tls_ca, max_nbytes, cache, short_circuit)


@lru_cache(maxsize=16)
def _shared(
    url: str,
    credentials: Credentials,
    timeouts: Timeouts,
    tls_ca: str,
    max_nbytes: int,
    cache: CachePolicy,
    short_circuit: bool,
) -> Session:
    # A worker loads an array for each task: with a session each, no connection would ever be used twice.
    return Session(Service(Transport(url, credentials, timeouts, tls_ca)), max_nbytes, cache, short_circuit)

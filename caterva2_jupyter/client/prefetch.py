"""Reads to come: what they would cost, how much of them is cached already, and having it fetched beforehand.

The blocks stay with the subscriber; nothing is read into this process.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..core.answer_choice import predict_block_cbytes
from ..core.chunk_grid import BlockPlan
from ..core.metadata import Entry, Geometry
from ..core.selection import Selection, parse_basic
from ..errors import IntegrityError, NotCachedError, SourceUnavailableError, UnsupportedDatasetError
from .cache_service import CacheService
from .download import write_sealed
from .progress import Progress, telling
from .reader import plan_windows
from .session import Session

__all__ = ["Prefetching", "ReadEstimate", "asked_estimate"]


@dataclass(frozen=True, slots=True)
class ReadEstimate:
    """What a read would cost.

    Attributes
    ----------
    cbytes : int
        Compressed bytes that its publisher would send, about; 0 when all of it is cached. As blocks: where the values
        themselves are far smaller, reads of `cache="auto"` get these instead.
    requests : int
        Requests that the subscriber would send for them.
    nblocks, held_nblocks : int
        Blocks that the selection touches, and those of them that are cached.

    Examples
    --------
    >>> client["foo/ds-1d"].prefetch()
    ReadEstimate(cbytes=0, requests=0, nblocks=100, held_nblocks=100)
    >>> client["foo/ds-1d"].estimate().fraction
    1.0
    """

    cbytes: int
    requests: int
    nblocks: int
    held_nblocks: int

    @property
    def fraction(self) -> float:
        """How much of it is cached, by blocks: 0 to 1."""
        return self.held_nblocks / self.nblocks if self.nblocks else 1.0


class _Dataset(Protocol):
    _session: Session
    _root: str
    _entry: Entry

    @property
    def _geometry(self) -> Geometry: ...

    @property
    def shape(self) -> tuple[int, ...]: ...


class Prefetching:
    """The methods of arrays and files about reads to come."""

    def estimate(self: _Dataset, key: Any = ...) -> ReadEstimate:
        """What reading ``self[key]`` would cost. Reads nothing.

        Parameters
        ----------
        key : index, optional
            As in ``self[key]``, such as ``numpy.s_[0, :100]``; all of it by default.

        Raises
        ------
        IndexError, TypeError
            As of ``self[key]``.
        DatasetChangedError, UnsupportedDatasetError

        Examples
        --------
        >>> estimate = client["foo/ds-1d"].estimate(np.s_[:25])
        >>> estimate.nblocks
        3
        """
        return _estimate(self._session, self._root, self._entry, _stored(self, key))

    def cached_fraction(self: _Dataset, key: Any = ...) -> float:
        """How much of ``self[key]`` the subscriber has cached, by blocks: 0 to 1.

        With 1 it can be read while the publisher is away.

        Parameters
        ----------
        key : basic index
            As of ``self[key]``; everything by default.

        Returns
        -------
        float

        Raises
        ------
        As `estimate`.

        Examples
        --------
        >>> array = client["foo/dir2/ds-4d"]
        >>> estimate = array.prefetch()
        >>> array.cached_fraction(np.s_[0])
        1.0
        """
        return _estimate(self._session, self._root, self._entry, _stored(self, key)).fraction

    def prefetch(self: _Dataset, key: Any = ..., progress: Progress | None = None) -> ReadEstimate:
        """Have the subscriber fetch what ``self[key]`` touches, so that it can be read offline.

        Blocks that are cached already are not fetched again: what broke off goes on from there.

        Parameters
        ----------
        key : index, optional
            All of it by default.
        progress : callable, optional
            Called with ``(done_nbytes, total_nbytes)``, compressed.

        Returns
        -------
        ReadEstimate
            What is still missing: a ``fraction`` under 1 means that the cache's quota is too small for it.

        Raises
        ------
        DatasetChangedError, SourceUnavailableError, DeadlineError
        UnsupportedDatasetError
            When connected to a service that keeps no cache.

        Examples
        --------
        >>> client["foo/ds-1d"].prefetch(np.s_[:10]).fraction
        1.0
        """
        with telling(progress, self._session.bars, self._entry.path) as progress:
            return _prefetch(self._session, self._root, self._entry, _stored(self, key), progress)

    def seal(self: _Dataset, path: str | os.PathLike[str] | None = None, progress: Progress | None = None) -> Path:
        """Write what the subscriber has cached to a native ``.b2nd``, asking no publisher.

        Parameters
        ----------
        path : path, optional
            File or directory; the dataset's name in the current directory by default.

        Returns
        -------
        pathlib.Path
            The file, which plain ``blosc2.open`` reads and a publisher can publish.

        Raises
        ------
        NotCachedError
            When not all of it is cached: ``prefetch()`` it first.

        Examples
        --------
        >>> array = client["foo/dir1/ds-3d"]
        >>> estimate = array.prefetch()
        >>> array.seal("sealed.b2nd")
        PosixPath('sealed.b2nd')
        """
        return _seal(self._session, self._root, self._entry, path, progress)


def _stored(dataset: _Dataset, key: Any) -> Selection:
    parsed = parse_basic(key, dataset.shape)
    return Selection(parsed.selection.axes[: dataset._geometry.ndim])


def _estimate(session: Session, root: str, entry: Entry, selection: Selection) -> ReadEstimate:
    try:
        return asked_estimate(session, root, entry, selection)
    except UnsupportedDatasetError:
        return _uncached(entry, selection)


def asked_estimate(session: Session, root: str, entry: Entry, selection: Selection) -> ReadEstimate:
    """What a service with a cache says that a read would cost.

    Raises
    ------
    UnsupportedDatasetError
        When it keeps none.
    """
    service = CacheService(session.service.transport)
    form = service.estimate(f"{root}/{entry.path}", entry.version, selection.to_json())
    numbers = [form.get(name) for name in ("cbytes", "requests", "blocks", "held_blocks")]
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise IntegrityError("malformed estimate of a read")
    return ReadEstimate(*[int(number or 0) for number in numbers])


def _uncached(entry: Entry, selection: Selection) -> ReadEstimate:
    """The estimate for a service with no cache, by what is known here."""
    geometry = entry.geometry
    assert geometry is not None
    nblocks = BlockPlan(geometry, selection).nblocks
    cbytes = predict_block_cbytes(entry, geometry)
    return ReadEstimate(int(nblocks * cbytes), len(plan_windows(nblocks, cbytes)), nblocks, 0)


def _prefetch(
    session: Session, root: str, entry: Entry, selection: Selection, progress: Progress | None
) -> ReadEstimate:
    service = CacheService(session.service.transport)
    retries = session.service.transport.timeouts.retries
    while True:
        done = 0
        try:
            for told in service.prefetch(f"{root}/{entry.path}", entry.version, selection.to_json()):
                done, total = int(told.get("done_cbytes", 0)), int(told.get("cbytes", 0))
                if progress is not None:
                    progress(done, total)
            break
        except SourceUnavailableError:
            if not done or retries <= 0:
                raise
            retries -= 1
    return _estimate(session, root, entry, selection)


def _seal(
    session: Session, root: str, entry: Entry, path: str | os.PathLike[str] | None, progress: Progress | None
) -> Path:
    service = CacheService(session.service.transport)

    def check_complete() -> None:
        assert entry.geometry is not None
        estimate = asked_estimate(session, root, entry, Selection.whole(entry.geometry.shape))
        if estimate.fraction < 1:
            raise NotCachedError(
                f"{estimate.nblocks - estimate.held_nblocks} blocks of {root}/{entry.path} are not in the cache: "
                "prefetch() it first"
            )

    return write_sealed(
        session,
        root,
        entry,
        path,
        lambda: service.sealed(f"{root}/{entry.path}", entry.version),
        check_complete,
        progress,
    )

"""What a card says of a dataset's state now: is it the newest version, is its publisher there, how much is cached?

Three small requests, given up after a second: a card is shown at once, whatever the service does.
"""

from __future__ import annotations

import time
from queue import Empty, Queue
from threading import Thread
from typing import TYPE_CHECKING

from ..core.rollback_mark import rollback_text
from ..core.selection import Selection
from ..errors import Caterva2Error, UnsupportedDatasetError
from .prefetch import asked_estimate
from .representation import format_age, format_time

if TYPE_CHECKING:
    from .remote_dataset import RemoteDataset

__all__ = ["state_rows", "when_modified"]

PATIENCE_S = 1.0


def state_rows(dataset: RemoteDataset) -> dict[str, str]:
    """Rows of a card; one that says so where the service cannot be asked, or is slow."""
    rows: Queue[dict[str, str]] = Queue()
    Thread(target=lambda: rows.put(_ask(dataset)), name="caterva2-card", daemon=True).start()
    try:
        return rows.get(timeout=PATIENCE_S)
    except Empty:
        return {"state": f"not known: no answer within {PATIENCE_S:g} s"}


def when_modified(mtime_ns: int) -> str:
    """When a dataset was changed, and how long ago that is; empty when it is not known."""
    modified = format_time(mtime_ns)
    return f"{modified}, {format_age(time.time() - mtime_ns / 1e9)}" if modified else ""


def _ask(dataset: RemoteDataset) -> dict[str, str]:
    try:
        freshness = dataset.freshness
    except Caterva2Error as error:
        return {"state": f"not known: {error}"}
    more = {
        "live": ": this is the newest version",
        "offline": ": what is cached can be read",
        "superseded": ": refresh() moves on to the newest version",
    }
    text = rollback_text(dataset.entry)
    went_back = {"went back": text} if text else {}
    return {"state": f"{freshness}{more[freshness.state]}"} | went_back | _cached(dataset)


def _cached(dataset: RemoteDataset) -> dict[str, str]:
    geometry = dataset.entry.geometry
    if geometry is None:
        return {}
    try:
        whole = asked_estimate(dataset._session, dataset.root, dataset.entry, Selection.whole(geometry.shape))
    except UnsupportedDatasetError:
        return {}  # a service without a cache
    except Caterva2Error as error:
        return {"cached": f"not known: {error}"}
    return {"cached": f"{_percent(whole.fraction)} ({whole.held_nblocks:,} of {whole.nblocks:,} blocks)"}


def _percent(fraction: float) -> str:
    """Rounded, but never to nothing or to all.

    >>> _percent(0.0), _percent(1e-6), _percent(0.374), _percent(0.9999), _percent(1.0)
    ('0 %', 'under 1 %', '37 %', '99 %', '100 %')
    """
    if 0 < fraction < 0.01:
        return "under 1 %"
    return f"{int(100 * fraction) if fraction > 0.99 else round(100 * fraction)} %"

"""What every ``Source`` has to do: the contracts of each of its methods together."""

from __future__ import annotations

from .catalog_contract import CatalogContract
from .event_contract import EventContract
from .file_contract import FileContract
from .read_contract import ReadContract
from .reduce_contract import ReduceContract

__all__ = ["SourceContract"]


class SourceContract(CatalogContract, ReadContract, ReduceContract, FileContract, EventContract):
    """What every ``Source`` has to do. Subclass as ``Test...`` and give ``wrap``.

    Attributes
    ----------
    tells_events : bool
        False: the source under test leaves ``events`` to another one.
    """

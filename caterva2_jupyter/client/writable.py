"""What whatever is in an area can be told to do: to move, to be copied, to go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.paths import join
from .area_service import AreaService
from .located import Located

if TYPE_CHECKING:
    from .group import RemoteObject

__all__ = ["Writable"]


class Writable(Located):
    """What groups and datasets can be told to do, wherever they are."""

    @property
    def _areas(self) -> AreaService:
        return AreaService(self._session.service.transport)

    def _address_of(self, path: str = "") -> str:
        return join(self._root, join(self.path, path) if path else self.path)

    def remove(self) -> None:
        """Remove it from its area: a directory with all that is in it.

        Raises
        ------
        DatasetNotFoundError
            When it is not there any more.
        AccessDeniedError
            When it is not in an area, or is one.

        Examples
        --------
        >>> array = client.upload(np.arange(4), "@personal/old.b2nd", overwrite=True)
        >>> array.remove()
        """
        self._areas.remove(self._address_of())

    def move(self, goal: str, *, overwrite: bool = False) -> RemoteObject:
        """Move it within its area or to another one.

        Parameters
        ----------
        goal : str
            Address ``AREA/PATH``; a directory that is there, or a trailing slash, keeps the name.
        overwrite : bool
            May a file that is there be replaced?

        Returns
        -------
        Group, RemoteArray, RemoteFile or UnsupportedDataset
            What it is now.

        Raises
        ------
        ConflictError
            When something is there.
        AccessDeniedError, DatasetNotFoundError

        Examples
        --------
        >>> array = client.upload(np.arange(4), "@personal/a.b2nd", overwrite=True)
        >>> array.move("@personal/b.b2nd", overwrite=True)
        <RemoteArray @personal/b.b2nd shape=(4,) dtype=int64>
        """
        return self._at(self._areas.move(self._address_of(), goal, overwrite=overwrite))

    def copy(self, goal: str, *, overwrite: bool = False) -> RemoteObject:
        """Copy it into an area; the bytes do not come here. It may be of any root.

        Parameters
        ----------
        goal : str
            Address ``AREA/PATH``; a directory that is there, or a trailing slash, keeps the name.
        overwrite : bool
            May a file that is there be replaced?

        Returns
        -------
        Group, RemoteArray, RemoteFile or UnsupportedDataset
            The copy. What of a group could not be copied is left out, and warned of.

        Raises
        ------
        ConflictError, AccessDeniedError, DatasetNotFoundError, TooLargeError

        Examples
        --------
        >>> client["foo/ds-1d"].copy("@personal/copy.b2nd", overwrite=True)
        <RemoteArray @personal/copy.b2nd shape=(1000,) dtype=int64>
        """
        address, skipped = self._areas.copy(self._address_of(), goal, overwrite=overwrite)
        warn_of_skipped(skipped)
        return self._at(address)

    def _at(self, address: str) -> RemoteObject:
        from .group import open_path

        root, _, path = address.partition("/")
        return open_path(self._session, root, path)


def warn_of_skipped(skipped: list[str]) -> None:
    """Warn of what a copy has left out."""
    if skipped:
        import warnings

        more = f", and {len(skipped) - 1} more" if len(skipped) > 1 else ""
        warnings.warn(f"not copied: {skipped[0]}{more}", UserWarning, stacklevel=3)

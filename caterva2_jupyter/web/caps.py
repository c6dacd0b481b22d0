"""What one client may have at once: so that none takes the service from the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import TooManyRequestsError

__all__ = ["ClientCap"]


class ClientCap:
    """Counts what clients hold, of one kind of thing.

    Parameters
    ----------
    what : str
        Plural, for the message.
    per_client, in_all : int
        The most that one client, and all together, may hold.
    """

    def __init__(self, what: str, per_client: int, in_all: int) -> None:
        self.what, self.per_client, self.in_all = what, per_client, in_all
        self._held: Counter[str] = Counter()
        self._total = 0

    @contextmanager
    def hold(self, client: str) -> Iterator[None]:
        """Hold one.

        Raises
        ------
        TooManyRequestsError
        """
        if self._held[client] >= self.per_client or self._total >= self.in_all:
            raise TooManyRequestsError(f"too many {self.what} at once: at most {self.per_client} for one client")
        self._held[client] += 1
        self._total += 1
        try:
            yield
        finally:
            self._total -= 1
            self._held[client] -= 1
            if not self._held[client]:
                del self._held[client]

"""Users of a subscriber that has some of its own, as methods: ``api/v1/user`` and ``api/v1/users`` over a transport."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from ..errors import IntegrityError, UnsupportedDatasetError
from .transport import NoSuchRouteError, Transport

__all__ = ["UserService"]


class UserService:
    """The users of the service behind a transport.

    ``add`` and ``remove`` are for superusers: others get `AccessDeniedError`. All but ``current`` raise
    `UnsupportedDatasetError` where nobody logs in, and inside Jupyter, which knows its users itself.

    Examples
    --------
    >>> client.users.current()["name"]
    'me@example.com'
    >>> client.users.add("you@example.com")["email"]
    'you@example.com'
    >>> sorted(user["email"] for user in client.users.list())
    ['me@example.com', 'you@example.com']
    >>> client.users.remove("you@example.com")
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def __repr__(self) -> str:
        return f"<UserService of {self._transport.url}>"

    def current(self) -> dict[str, Any]:
        """Who we are to the service: ``name`` (None for strangers), ``is_superuser``, ``groups``, ``login``.

        Raises
        ------
        SourceUnavailableError

        Examples
        --------
        >>> client.users.current()["name"]
        'me@example.com'
        """
        return _checked(self._ask("GET", "/api/v1/user"))

    def add(self, email: str, password: str | None = None, *, is_superuser: bool = False) -> dict[str, Any]:
        """Add a user.

        Parameters
        ----------
        email : str
        password : str, optional
            At least 8 characters. One is made up when it is not given; it is in the answer then, and nowhere else.
        is_superuser : bool
            May manage users, and sees every root.

        Returns
        -------
        dict
            ``id``, ``email``, ``is_active``, ``is_superuser``, ``is_verified``; ``password`` if it was made up.

        Raises
        ------
        RequestError
            When the e-mail or the password cannot be used, or there are as many users as there may be.
        ConflictError
            When there is such a user.
        """
        form = {"email": email, "password": password, "is_superuser": is_superuser}
        return _checked(self._ask("POST", "/api/v1/users", form))

    def remove(self, email: str) -> None:
        """Remove a user, with the personal area. Whoever is logged in as that user is logged out.

        Parameters
        ----------
        email : str

        Raises
        ------
        NotFoundError
        """
        self._ask("DELETE", f"/api/v1/users/{quote(email, safe='')}")

    def list(self, email: str | None = None) -> list[dict[str, Any]]:
        """All users, or the one of an e-mail; for whoever has logged in.

        Parameters
        ----------
        email : str, optional
            One user only.
        """
        users = self._ask("GET", "/api/listusers/", params={"username": email} if email is not None else None)
        if not isinstance(users, list) or not all(isinstance(user, dict) for user in users):
            raise IntegrityError("malformed answer about users")
        return users

    def _ask(self, method: str, route: str, form: object = None, params: Mapping[str, str] | None = None) -> Any:
        body = None if form is None else json.dumps(form).encode()
        try:
            with self._transport.request(method, route, params=params, body=body) as answer:
                return answer.json()
        except NoSuchRouteError:
            raise UnsupportedDatasetError(
                f"{self._transport.url} has no users of its own: start cat2sub with CATERVA2_SECRET"
            ) from None


def _checked(form: Any) -> dict[str, Any]:
    if not isinstance(form, dict):
        raise IntegrityError("malformed answer about users")
    return form

"""Users over HTTP: registering, forgotten passwords, and what superusers do; REST v1 and the older routes.

Shapes, statuses and texts of ``/auth/...`` and ``/api/...`` are those that the older system's clients know, but that
nobody is told a hash. Pages for people are in ``account_pages``; logging in and out is in ``login``.
"""

from __future__ import annotations

import asyncio
import secrets
import uuid
from typing import Any

from ..config import SubscriberConfig
from ..errors import AccessDeniedError, AuthenticationError, Caterva2Error, ConflictError, RequestError
from ..web.access import AccessPolicy
from ..web.service import Route
from .areas import Areas
from .handlers import OldRefusalError
from .login import AuthHandler, Logins
from .mail import tell_reset
from .permissions import SignedIn
from .users import EmailError, PasswordError, UnknownUserError, User, is_email

__all__ = ["MAX_FORM_NBYTES", "AccountHandler", "Accounts", "user_routes"]

MAX_FORM_NBYTES = 64 << 10


class Accounts:
    """What is done with users: by themselves, and by superusers.

    Parameters
    ----------
    logins : Logins
    areas : Areas
        The personal one goes with its user.
    config : SubscriberConfig
    """

    def __init__(self, logins: Logins, areas: Areas, config: SubscriberConfig) -> None:
        self.logins, self.config = logins, config
        self._areas = areas
        self._mailing: set[asyncio.Future[None]] = set()

    async def add(self, email: str, password: str, *, is_superuser: bool) -> User:
        """See ``UserStore.add``."""
        return await self.logins.run(lambda: self.logins.users.add(email, password, is_superuser=is_superuser))

    async def remove(self, email: str) -> User:
        """Remove a user with all that is in the personal area.

        Raises
        ------
        UnknownUserError
        """
        user = await self.logins.run(self.logins.users.remove, email)
        try:
            ident = str(uuid.UUID(user.id))
        except ValueError:
            return user  # put there by somebody else, and without an area
        await self.logins.run(self._areas.forget_personal, ident)
        return user

    async def listed(self, email: str | None = None) -> list[User]:
        return await self.logins.run(self.logins.users.listed, email)

    async def forgot(self, email: str, client: str) -> None:
        """Tell the user of an e-mail how to set another password, if there is one; nobody else learns whether.

        Raises
        ------
        TooManyRequestsError
        """
        token = await self.logins.reset_token(email, client)
        if token is None:
            return
        # Not waited for: how long it takes would tell.
        mailing = asyncio.ensure_future(
            self.logins.run(
                tell_reset, email, self.config.urlbase.rstrip("/"), f"reset-password/{token}", self.config.smtp
            )
        )
        self._mailing.add(mailing)
        mailing.add_done_callback(self._mailing.discard)


class AccountHandler(AuthHandler):
    """Base of handlers about users."""

    def initialize(self, accounts: Accounts, policy: AccessPolicy) -> None:  # type: ignore[override]
        super().initialize(logins=accounts.logins, policy=policy)
        self.accounts = accounts

    def set_default_headers(self) -> None:
        super().set_default_headers()
        self.set_header("Cache-Control", "no-store")

    @property
    def signed_in(self) -> SignedIn:
        """Who has logged in.

        Raises
        ------
        AuthenticationError
        """
        user: object = self.current_user
        if not isinstance(user, SignedIn):
            raise AuthenticationError("a login is needed")
        return user

    def small_json(self) -> dict[str, Any]:
        if len(self.request.body) > MAX_FORM_NBYTES:
            raise RequestError(f"the body has over {MAX_FORM_NBYTES} bytes")
        return self.json_body()


class _OldHandler(AccountHandler):
    """Base of the older routes: ``{"detail": ...}``, and 422 for what is not in the body."""

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = kwargs["exc_info"][1] if "exc_info" in kwargs else None
        if not isinstance(error, Caterva2Error):
            super().write_error(status_code, **kwargs)
            return
        is_plain_401 = isinstance(error, AuthenticationError) and not isinstance(error, OldRefusalError)
        self.set_status(error.status)
        self.write_json({"detail": "Unauthorized" if is_plain_401 else str(error)})
        self.finish()

    def fields(self, **kinds: type | tuple[type, ...]) -> dict[str, Any] | None:
        """Values of the body; None when some are missing or of another kind, which has been answered then."""
        try:
            form = self.small_json()
        except RequestError:
            form = {}
        wrong = [name for name, kind in kinds.items() if not isinstance(form.get(name), kind)]
        if not wrong:
            return {name: form.get(name) for name in kinds}
        self.refuse_fields({name: "Field required" for name in wrong})
        return None

    def refuse_fields(self, problems: dict[str, str]) -> None:
        self.set_status(422)
        kind = {"Field required": "missing"}
        self.write_json(
            {
                "detail": [
                    {"type": kind.get(text, "value_error"), "loc": ["body", name], "msg": text}
                    for name, text in problems.items()
                ]
            }
        )

    def check_superuser(self, doing: str) -> None:
        if not self.signed_in.is_superuser:
            raise OldRefusalError(f"Only superusers can {doing}")


class _RegisterHandler(_OldHandler):
    """``POST /auth/register``."""

    async def post(self) -> None:
        fields = self.fields(email=str, password=str)
        if fields is None:
            return
        try:
            user = await self.accounts.logins.register(fields["email"], fields["password"], self.remote_key)
        except EmailError as error:
            self.refuse_fields({"email": str(error)})
        except PasswordError as error:
            self.set_status(400)
            self.write_json({"detail": {"code": "REGISTER_INVALID_PASSWORD", "reason": str(error)}})
        except ConflictError:
            self.set_status(400)
            self.write_json({"detail": "REGISTER_USER_ALREADY_EXISTS"})
        else:
            self.set_status(201)
            self.write_json(user.to_json())


class _ForgotHandler(_OldHandler):
    """``POST /auth/forgot-password``: 202, whether there is such a user or not."""

    async def post(self) -> None:
        fields = self.fields(email=str)
        if fields is None:
            return
        if not is_email(fields["email"]):
            self.refuse_fields({"email": "not an e-mail address"})
            return
        await self.accounts.forgot(fields["email"], self.remote_key)
        self.set_status(202)
        self.write_json(None)


class _ResetHandler(_OldHandler):
    """``POST /auth/reset-password``."""

    async def post(self) -> None:
        fields = self.fields(token=str, password=str)
        if fields is None:
            return
        try:
            was_reset = await self.accounts.logins.reset_password(fields["token"], fields["password"])
        except PasswordError as error:
            self.set_status(400)
            self.write_json({"detail": {"code": "RESET_PASSWORD_INVALID_PASSWORD", "reason": str(error)}})
            return
        if not was_reset:
            self.set_status(400)
        self.write_json(None if was_reset else {"detail": "RESET_PASSWORD_BAD_TOKEN"})


class _OldAddHandler(_OldHandler):
    """``POST /api/adduser/``."""

    async def post(self) -> None:
        self.check_superuser("add users")
        fields = self.fields(username=str, password=(str, type(None)), superuser=bool)
        if fields is None:
            return
        email, password, is_superuser = fields["username"], fields["password"], fields["superuser"]
        password = secrets.token_urlsafe(12) if password is None else password
        try:
            await self.accounts.add(email, password, is_superuser=is_superuser)
        except ConflictError:
            pass  # as the older system: it is there
        except PasswordError as error:
            raise RequestError(f"Error in adding {email}: InvalidPasswordException: {error}") from None
        except EmailError as error:
            raise RequestError(f"Error in adding {email}: {error}") from None
        self.write_json(f"User added: username={email!r} password={password!r} superuser={is_superuser}")


class _OldRemoveHandler(_OldHandler):
    """``GET /api/deluser/NAME``: for programs only, since a link that somebody follows must not do it."""

    async def get(self, email: str) -> None:
        self._check_no_browser()
        self.check_superuser("delete users")
        try:
            await self.accounts.remove(email)
        except UnknownUserError:
            raise RequestError(f"Error in deleting {email}: UserNotExists") from None
        self.write_json(f"User deleted: {email}")

    def _check_no_browser(self) -> None:
        """A browser sends the cookie with a link from anywhere, and not always where that was."""
        headers = self.request.headers
        told = [name for name in ("Origin", "Referer", "Sec-Fetch-Site", "Sec-Fetch-Mode") if name in headers]
        if told or "mozilla" in headers.get("User-Agent", "").lower():
            raise AccessDeniedError("from a browser, users are deleted by DELETE api/v1/users/NAME")


class _OldListHandler(_OldHandler):
    """``GET /api/listusers/?username=``."""

    async def get(self) -> None:
        self.signed_in  # noqa: B018 - refuses others
        users = await self.accounts.listed(self.query_texts().get("username") or None)
        self.write_json([{**user.to_json(), "hashed_password": None} for user in users])


class _UsersHandler(AccountHandler):
    """``GET users``; ``POST users`` with ``{"email", "password", "is_superuser"}``."""

    async def get(self) -> None:
        user = self.signed_in
        users = await self.accounts.listed(None if user.is_superuser else user.email)
        self.write_json({"users": [user.to_json() for user in users]})

    async def post(self) -> None:
        _check_superuser(self.signed_in)
        form = self.small_json()
        unknown = set(form) - {"email", "password", "is_superuser"}
        if unknown:
            raise RequestError(f"unknown key: {min(unknown)[:40]!r}")
        email, password, is_superuser = form.get("email"), form.get("password"), form.get("is_superuser", False)
        if not isinstance(email, str) or not isinstance(is_superuser, bool) or not isinstance(password, str | None):
            raise RequestError("email and password are texts (no password: one is made up), is_superuser true or false")
        given = password if password is not None else secrets.token_urlsafe(12)
        user = await self.accounts.add(email, given, is_superuser=is_superuser)
        self.set_status(201)
        # One that was made up is told this once.
        self.write_json({**user.to_json(), **({"password": given} if password is None else {})})


class _OneUserHandler(AccountHandler):
    """``DELETE users/NAME``."""

    async def delete(self, email: str) -> None:
        _check_superuser(self.signed_in)
        user = await self.accounts.remove(email)
        self.write_json({"email": user.email})


def _check_superuser(user: SignedIn) -> None:
    if not user.is_superuser:
        raise AccessDeniedError("only superusers manage users")


def user_routes(accounts: Accounts, anybody: AccessPolicy, prefix: str = "") -> list[Route]:
    """Routes of a subscriber whose users log in, under a prefix.

    Parameters
    ----------
    anybody : AccessPolicy
        Of what those need who cannot log in.
    """
    closed: list[tuple[str, type[AccountHandler]]] = [
        (r"/api/adduser/", _OldAddHandler),
        (r"/api/deluser/([^/]+)", _OldRemoveHandler),
        (r"/api/listusers/", _OldListHandler),
        (r"/api/v1/users", _UsersHandler),
        (r"/api/v1/users/([^/]+)", _OneUserHandler),
    ]
    opened: list[tuple[str, type[AccountHandler]]] = [
        (r"/auth/forgot-password", _ForgotHandler),
        (r"/auth/reset-password", _ResetHandler),
    ]
    if accounts.config.register:
        opened.append((r"/auth/register", _RegisterHandler))
    return [
        (prefix + pattern, handler, {"accounts": accounts, "policy": policy})
        for handlers, policy in ((closed, accounts.logins), (opened, anybody))
        for pattern, handler in handlers
    ]

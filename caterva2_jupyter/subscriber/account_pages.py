"""The pages of a stand-alone subscriber where people log in and out, register, and set a new password.

They are plain forms: no script runs in them, and nothing is loaded. A form that a page of another origin sends is
refused by the guard of all services; where one goes on to afterwards is always a path of this service. Users themselves
are ``user_handlers``' and ``login``'s business.
"""

from __future__ import annotations

import base64
import hashlib
import re
import time
from html import escape
from typing import Any
from urllib.parse import quote, urlsplit

from ..errors import AccessDeniedError, Caterva2Error, ConflictError, RequestError, TooManyRequestsError
from ..web.access import AccessPolicy, Open
from ..web.service import Route
from .login import COOKIE
from .permissions import SignedIn
from .user_handlers import MAX_FORM_NBYTES, AccountHandler, Accounts
from .users import EmailError, PasswordError, UserLimitError

__all__ = ["account_routes", "own_path"]

_STYLE = """
body { margin: 0; font: 13px/1.4 system-ui, sans-serif; color: #222; background: #fff; }
header { padding: 4px 12px; border-bottom: 1px solid #ddd; }
header a { color: inherit; text-decoration: none; font-size: 16px; font-weight: bold; }
main { max-width: 22rem; margin: 3rem auto; padding: 0 1rem; }
h1 { font-size: 16px; }
label { display: block; margin: 0.8rem 0; color: #595959; }
input { display: block; box-sizing: border-box; width: 100%; margin-top: 2px; padding: 6px 8px; font: inherit;
  color: #222; background: #fff; border: 1px solid #999; border-radius: 3px; }
button { font: inherit; padding: 6px 14px; color: #fff; background: #1667b0; border: 0; border-radius: 3px;
  cursor: pointer; }
button:hover { background: #0b5394; }
a { color: #1667b0; }
nav { margin-top: 1.5rem; display: flex; gap: 1.5rem; }
.error { color: #b3261e; }
@media (prefers-color-scheme: dark) {
  body { color: #ddd; background: #1c1c1c; color-scheme: dark; }
  header { border-color: #444; }
  label { color: #aaa; }
  input { color: #ddd; background: #111; border-color: #777; }
  a { color: #6ca8dc; }
  .error { color: #f28b82; }
}
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
ACCOUNT_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; img-src data:; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
_OWN_PATH = re.compile(r"/(?![/\\])[!-\[\]-~]*", re.ASCII)


def own_path(text: str, prefix: str) -> str:
    """A path of this service to go on to; its page when the text is none, or leads elsewhere.

    >>> own_path("/roots/foo?x=1", ""), own_path("//evil.example/", ""), own_path("/other", "/cat2")
    ('/roots/foo?x=1', '/', '/cat2/')
    """
    is_own = _OWN_PATH.fullmatch(text) is not None and (not prefix or text.startswith(f"{prefix}/"))
    return text if is_own and ".." not in urlsplit(text).path.split("/") else f"{prefix}/"


def _page(prefix: str, title: str, body: str) -> str:
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{escape(title)} · Remote arrays</title>\n<link rel="icon" href="data:,">\n<style>{_STYLE}</style>\n'
        f'</head>\n<body>\n<header><a href="{escape(prefix)}/">Remote arrays</a></header>\n'
        f"<main>\n<h1>{escape(title)}</h1>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _field(label: str, name: str, kind: str, autocomplete: str, value: str = "") -> str:
    return (
        f'<label>{escape(label)}<input name="{name}" type="{kind}" autocomplete="{autocomplete}" '
        f'value="{escape(value)}" required></label>'
    )


class _Page(AccountHandler):
    """Base of the pages."""

    title = ""

    def initialize(self, accounts: Accounts, policy: AccessPolicy) -> None:  # type: ignore[override]
        super().initialize(accounts=accounts, policy=policy)
        self.prefix = urlsplit(accounts.config.urlbase).path.rstrip("/")

    def set_default_headers(self) -> None:
        super().set_default_headers()
        self.set_header("Content-Security-Policy", ACCOUNT_POLICY)
        self.set_header("Referrer-Policy", "same-origin")

    def prepare(self) -> None:
        super().prepare()
        headers = self.request.headers
        host = headers.get("Host", "").lower()
        # A browser that tells no origin may tell the page.
        referrer = urlsplit(headers.get("Referer", f"http://{host}")).netloc.lower()
        if self.request.method == "POST" and "Origin" not in headers and referrer != host:
            raise AccessDeniedError("forms of other sites are refused")

    @property
    def user(self) -> SignedIn | None:
        token = self.get_cookie(COOKIE)
        user = self.logins.user_of(token, time.time()) if token else None
        return SignedIn(user.id, user.email) if user else None

    @property
    def goal(self) -> str:
        """Where one goes on to."""
        return own_path(self._next or "", self.prefix)

    @property
    def _next(self) -> str | None:
        values = self.request.query_arguments.get("next")
        return values[0].decode("utf-8", "replace") if values else None

    def form(self, *names: str) -> list[str]:
        """Texts of the form that was sent.

        Raises
        ------
        RequestError
        """
        if len(self.request.body) > MAX_FORM_NBYTES:
            raise RequestError("the form is too large")
        values = [self.request.body_arguments.get(name, [b""])[-1].decode("utf-8", "replace") for name in names]
        if not all(values):
            raise RequestError("fill in all of the form")
        return values

    def show(self, body: str, problem: str = "") -> None:
        alert = f'<p class="error" role="alert">{escape(problem)}</p>\n' if problem else ""
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.finish(_page(self.prefix, self.title, alert + body))

    def show_form(self, problem: str = "") -> None:
        """The page with its form."""
        raise NotImplementedError

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """What is wrong with a form is told above the form."""
        error = kwargs["exc_info"][1] if "exc_info" in kwargs else None
        is_about_form = isinstance(error, (RequestError, ConflictError, TooManyRequestsError))
        if not isinstance(error, Caterva2Error) or not is_about_form:
            super().write_error(status_code, **kwargs)
            return
        self.set_status(error.status)
        if isinstance(error, TooManyRequestsError):
            self.set_header("Retry-After", "60")
        self.show_form(str(error))

    def go_on(self, path: str) -> None:
        self.redirect(path, status=303)

    def links(self, *names: str) -> str:
        texts = {"login": "Log in", "register": "Register", "forgot-password": "Forgot the password?"}
        shown = [name for name in names if name != "register" or self.accounts.config.register]
        suffix = f"?next={quote(self.goal, safe='')}" if self._next is not None else ""
        return (
            "<nav>" + "".join(f'<a href="{escape(self.prefix)}/{n}{suffix}">{texts[n]}</a>' for n in shown) + "</nav>"
        )


class _LoginPage(_Page):
    title = "Log in"

    def show_form(self, problem: str = "") -> None:
        fields = _field("E-mail", "username", "email", "username") + _field(
            "Password", "password", "password", "current-password"
        )
        self.show(
            f'<form method="post">{fields}<button>Log in</button></form>{self.links("register", "forgot-password")}',
            problem,
        )

    async def get(self) -> None:
        if self.user is not None:
            self.redirect(self.goal)
            return
        self.show_form()

    async def post(self) -> None:
        email, password = self.form("username", "password")
        token = await self.logins.log_in(email, password, self.remote_key)
        if token is None:
            raise RequestError("There is no user of that e-mail with that password.")
        self.set_login_cookie(token, None)
        self.go_on(self.goal)


class _LogoutPage(_Page):
    title = "Log out"

    def show_form(self, problem: str = "") -> None:
        user = self.user
        name = escape(user.email) if user else ""
        self.show(f'<p>You are logged in as {name}.</p><form method="post"><button>Log out</button></form>', problem)

    async def get(self) -> None:
        if self.user is None:
            self.redirect(f"{self.prefix}/login")
            return
        self.show_form()

    async def post(self) -> None:
        await self.logins.log_out(self.get_cookie(COOKIE, "") or "", time.time())
        self.set_login_cookie("", 0)
        self.go_on(f"{self.prefix}/login")


class _RegisterPage(_Page):
    title = "Register"

    def show_form(self, problem: str = "") -> None:
        fields = _field("E-mail", "email", "email", "username") + _field(
            "Password (at least 8 characters)", "password", "password", "new-password"
        )
        self.show(f'<form method="post">{fields}<button>Register</button></form>{self.links("login")}', problem)

    async def get(self) -> None:
        self.show_form()

    async def post(self) -> None:
        email, password = self.form("email", "password")
        try:
            user = await self.logins.register(email, password, self.remote_key)
        except ConflictError:
            raise ConflictError("There is a user of that e-mail already.") from None
        except (EmailError, PasswordError, UserLimitError) as error:
            raise RequestError(f"{error}.") from None
        self.set_login_cookie(self.logins.token(user, time.time()), None)
        self.go_on(self.goal)


class _ForgotPage(_Page):
    title = "Forgot the password?"

    def show_form(self, problem: str = "") -> None:
        field = _field("E-mail", "email", "email", "username")
        self.show(
            f'<form method="post">{field}<button>Send me a link to set another</button></form>{self.links("login")}',
            problem,
        )

    async def get(self) -> None:
        self.show_form()

    async def post(self) -> None:
        (email,) = self.form("email")
        await self.accounts.forgot(email, self.remote_key)
        self.set_status(202)
        self.show(
            f"<p>If there is a user {escape(email)}, a mail with a link is on its way. It works for one hour.</p>"
            + self.links("login")
        )


class _ResetPage(_Page):
    title = "Set a new password"

    def show_form(self, problem: str = "") -> None:
        field = _field("New password (at least 8 characters)", "password", "password", "new-password")
        self.show(f'<form method="post">{field}<button>Set it</button></form>', problem)

    async def get(self, token: str) -> None:
        self.show_form()

    async def post(self, token: str) -> None:
        (password,) = self.form("password")
        if not await self.logins.reset_password(token, password):
            raise RequestError("This link was used already, or is too old: ask for another.")
        self.show(
            "<p>The password is set. Whoever was logged in with the old one is logged out.</p>" + self.links("login")
        )


def account_routes(accounts: Accounts, prefix: str = "") -> list[Route]:
    """The pages, under a prefix."""
    pages: list[tuple[str, type[_Page]]] = [
        (r"/login", _LoginPage),
        (r"/logout", _LogoutPage),
        (r"/forgot-password", _ForgotPage),
        (r"/reset-password/([^/]+)", _ResetPage),
    ]
    if accounts.config.register:
        pages.append((r"/register", _RegisterPage))
    return [(prefix + pattern, page, {"accounts": accounts, "policy": Open()}) for pattern, page in pages]

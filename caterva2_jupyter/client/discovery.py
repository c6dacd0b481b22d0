"""Where the subscriber is, and who we are to it: found in the order that users are told.

Argument; ``CATERVA2_URL`` and ``CATERVA2_TOKEN``; the connection file that the server extension names in its
kernels' environment; the Jupyter server that is the kernel's parent; ``caterva2.toml``; localhost:8002.
A token is only given to the address that it was found with. No request is made here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ..config import load_config
from ..errors import ConfigError
from .address import parse_service_url
from .transport import Credentials

__all__ = ["Found", "find_credentials", "find_service"]


@dataclass(frozen=True, slots=True)
class Found:
    """A service's address, what opens it, and where both were found (for messages)."""

    url: str
    credentials: Credentials
    origin: str
    tls_ca: str = ""


def find_service(
    url: str | None = None,
    token: str | None = None,
    username: str | None = None,
    password: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> Found:
    """The service to talk to.

    Parameters
    ----------
    url : str, optional
        See ``parse_service_url``. Without it the first place that names a service decides.
    token, username, password : str, optional
        Used instead of any that is found.
    environ : mapping, optional
        Environment variables; ``os.environ`` by default.

    Raises
    ------
    ConfigError
        When what a place says cannot be used.

    Examples
    --------
    >>> find_service("http://localhost:8002", token="t", environ={})
    Found(url='http://localhost:8002', credentials=Credentials(), origin='argument', tls_ca='')
    """
    environ = os.environ if environ is None else environ
    for name, value in (("token", token), ("username", username), ("password", password)):
        if value is not None and not isinstance(value, str):
            raise ConfigError(f"{name} is text, not {type(value).__name__}")
    given = Credentials(token or "", username or "", password or "")
    if bool(given.username) != bool(given.password):
        missing = "password" if given.username else "username"
        raise ConfigError(f"a user logs in with both username and password: {missing} is missing")
    if url is not None:
        service = parse_service_url(url)
        if given != Credentials():
            return Found(service.url, given, "argument", _tls_ca(environ))
        if service.token:
            return Found(service.url, Credentials(service.token), "argument", _tls_ca(environ))
        return Found(service.url, find_credentials(service.url, environ), "argument", _tls_ca(environ))
    found = next(_places(environ))
    return found if given == Credentials() else Found(found.url, given, found.origin, found.tls_ca)


def find_credentials(url: str, environ: Mapping[str, str] | None = None) -> Credentials:
    """What opens the service at ``url``; nothing when no place knows that address."""
    environ = os.environ if environ is None else environ
    if not environ.get("CATERVA2_URL"):
        # Said of no address: for the one that is asked for.
        said = Credentials(*(environ.get(f"CATERVA2_{name}", "") for name in ("TOKEN", "USERNAME", "PASSWORD")))
        if said.token or (said.username and said.password):
            return said
    for found in _places(environ):
        if _is_same(found.url, url) and found.credentials != Credentials():
            return found.credentials
    return Credentials()


def _places(environ: Mapping[str, str]) -> Iterator[Found]:
    """Every place that names a service, best first; the last always does."""
    if environ.get("CATERVA2_URL"):
        service = parse_service_url(environ["CATERVA2_URL"])
        credentials = Credentials(
            environ.get("CATERVA2_TOKEN", "") or service.token,
            environ.get("CATERVA2_USERNAME", ""),
            environ.get("CATERVA2_PASSWORD", ""),
        )
        yield Found(service.url, credentials, "CATERVA2_URL", _tls_ca(environ))
    if environ.get("CATERVA2_CONNECTION_FILE"):
        yield _connection_file(Path(environ["CATERVA2_CONNECTION_FILE"]))
    if (server := _parent_server(environ)) is not None:
        yield server
    # What the environment says of another address is not for the one in the file.
    config = load_config(environ={} if environ.get("CATERVA2_URL") else environ)
    client = config.client()
    yield Found(
        parse_service_url(client.url).url,
        Credentials(client.token, client.username, client.password),
        config.source or "default",
        client.tls_ca,
    )


def _tls_ca(environ: Mapping[str, str]) -> str:
    return load_config(environ=environ).client().tls_ca


def _connection_file(path: Path) -> Found:
    try:
        form = json.loads(path.read_text())
        if not isinstance(form["url"], str):
            raise TypeError
        service = parse_service_url(form["url"])
        return Found(service.url, Credentials(str(form.get("token") or "")), str(path))
    except OSError as error:
        raise ConfigError(f"cannot read the connection file {path}: {error.strerror}; restart the kernel") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigError(f"{path} is not a connection file; restart the Jupyter server") from None


def _parent_server(environ: Mapping[str, str]) -> Found | None:
    """The running Jupyter server that started this process, from the file that it leaves for others."""
    pid = environ.get("JPY_PARENT_PID", "")
    if not pid.isdigit():
        return None
    file = _runtime_dir(environ) / f"jpserver-{pid}.json"
    try:
        form = json.loads(file.read_text())
        base = str(form.get("base_url") or "/").rstrip("/")
        token = str(form.get("token") or "")
        if form.get("sock"):
            url = parse_service_url(f"unix:{form['sock']}").url + base
        else:
            parts = urlsplit(str(form["url"]))
            if parts.scheme not in ("http", "https") or not parts.netloc:
                return None
            url = f"{parts.scheme}://{parts.netloc}{base}"
        return Found(f"{url}/caterva2", Credentials(token), str(file))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _runtime_dir(environ: Mapping[str, str]) -> Path:
    if environ.get("JUPYTER_RUNTIME_DIR"):
        return Path(environ["JUPYTER_RUNTIME_DIR"])
    try:
        from jupyter_core.paths import jupyter_runtime_dir
    except ImportError:
        return Path.home() / ".local" / "share" / "jupyter" / "runtime"
    return Path(jupyter_runtime_dir())


def _is_same(one: str, other: str) -> bool:
    return _normal(one) == _normal(other)


def _normal(url: str) -> tuple[str, str, int | None, str]:
    parts = urlsplit(url.rstrip("/"))
    port = parts.port if parts.scheme == "http+unix" else parts.port or (443 if parts.scheme == "https" else 80)
    return parts.scheme, parts.netloc if parts.scheme == "http+unix" else str(parts.hostname), port, parts.path

"""Addresses of datasets and of services, as texts: parsed and built, nothing is looked up.

``ROOT/PATH`` is a dataset of the service that one is connected to; ``cat2://ROOT/PATH`` says the same;
``cat2http://host:port/base/-/ROOT/PATH`` (or ``cat2https``) names the service too.
"""

from __future__ import annotations

import reprlib
from dataclasses import dataclass
from urllib.parse import parse_qs, quote, unquote, urlsplit, urlunsplit

from ..core.paths import split_address, whole_address
from ..errors import AccessDeniedError, ConfigError, InvalidPathError

__all__ = ["DatasetAddress", "ServiceUrl", "parse_address", "parse_service_url", "split_for"]

_PAGES = ("/lab", "/tree", "/notebooks", "/doc")


@dataclass(frozen=True, slots=True)
class DatasetAddress:
    """Where a dataset or group is.

    Attributes
    ----------
    url : str
        Base URL of the service; empty for the one that ``connect()`` finds.
    root : str
    path : str
        Empty for the root itself.
    """

    url: str
    root: str
    path: str

    def __str__(self) -> str:
        where = quote(whole_address(self.root, self.path), safe="/@")
        return f"cat2{self.url}/-/{where}" if self.url else f"cat2://{where}"


def parse_address(text: str) -> DatasetAddress:
    """Parse ``ROOT/PATH``, ``cat2://ROOT/PATH`` or ``cat2http(s)://HOST/BASE/-/ROOT/PATH``.

    Parameters
    ----------
    text : str
        Percent escapes are decoded in the forms with a scheme only.

    Returns
    -------
    DatasetAddress

    Raises
    ------
    InvalidPathError
        When it is none of the three forms.
    TypeError
        When it is no text.

    Examples
    --------
    >>> parse_address("cat2https://lab.org/caterva2/-/climate/era5.nc").url
    'https://lab.org/caterva2'
    >>> parse_address("climate/era5.nc").path
    'era5.nc'
    """
    if not isinstance(text, str):
        raise TypeError(f"an address is text, 'ROOT/PATH', not {type(text).__name__}: {reprlib.repr(text)}")
    if text.startswith("cat2://"):
        return DatasetAddress("", *split_address(unquote(text.removeprefix("cat2://"), errors="strict")))
    if text.startswith(("cat2http://", "cat2https://", "cat2http+unix://")):
        base, dash, where = text.removeprefix("cat2").partition("/-/")
        if not dash or not urlsplit(base).netloc:
            raise InvalidPathError(f"not an address: {text[:200]!r}; write cat2http://HOST:PORT/BASE/-/ROOT/PATH")
        return DatasetAddress(base.rstrip("/"), *split_address(unquote(where, errors="strict")))
    if text.startswith(("http://", "https://")):
        raise InvalidPathError(
            f"not an address: {text[:200]!r}; write ROOT/PATH, or with its service cat2http://HOST:PORT/BASE/-/ROOT/PATH"
        )
    if not text or text.startswith(("/", ".")) or ("\\" in text and "/" not in text):
        raise InvalidPathError(f"not an address: {text[:200]!r}; write ROOT/PATH, with no slash before the root's name")
    return DatasetAddress("", *split_address(text))


def split_for(url: str, address: str) -> tuple[str, str]:
    """Root and path of an address that is of the service at ``url``.

    Raises
    ------
    AccessDeniedError
        When it names another service.
    InvalidPathError, TypeError

    Examples
    --------
    >>> split_for("http://localhost:8002", "cat2://foo/ds-1d")
    ('foo', 'ds-1d')
    """
    parsed = parse_address(address)
    if parsed.url and parsed.url != url:
        raise AccessDeniedError(f"{address} is of another service than {url}: connect() to that one, or open_address()")
    return parsed.root, parsed.path


@dataclass(frozen=True, slots=True)
class ServiceUrl:
    """A service's base URL, and the token that stood in its query (Jupyter prints such URLs)."""

    url: str
    token: str = ""


def parse_service_url(text: str) -> ServiceUrl:
    """The base URL of a service from what people paste.

    Parameters
    ----------
    text : str
        ``http(s)://host:port/base``, ``host:port``; of a unix socket ``http+unix://%2Fpath%2Fto%2Fsocket``,
        ``unix:/path`` or just ``/path``.
        The URL of a Jupyter page or one with ``?token=`` stands for the extension inside that server.

    Raises
    ------
    ConfigError
        When it is not a URL, or one with a user name or password in it.

    Examples
    --------
    >>> parse_service_url("localhost:8002/").url
    'http://localhost:8002'
    >>> parse_service_url("http://localhost:8888/user/me/lab/tree/a.ipynb?token=abc")
    ServiceUrl(url='http://localhost:8888/user/me/caterva2', token='abc')
    """
    if not isinstance(text, str):
        raise ConfigError(f"the URL of a service is text, as 'http://localhost:8002', not {type(text).__name__}")
    if not text:
        raise ConfigError("the URL of a service is empty: write http://host:port, or leave it out to have one found")
    if text.startswith(("unix:", "/")):
        return ServiceUrl("http+unix://" + quote(text.removeprefix("unix:"), safe=""))
    if "://" not in text:
        text = f"http://{text}"
    parts = urlsplit(text)
    try:
        port_fits = parts.port is None or parts.port > 0
    except ValueError:
        port_fits = False
    if parts.scheme not in ("http", "https", "http+unix") or not parts.netloc or not port_fits:
        raise ConfigError(f"{text!r} is not the URL of a service: write http://host:port or https://host/base")
    if "@" in parts.netloc:
        raise ConfigError("a URL must not hold a user name or password: give username= and password=")
    token = parse_qs(parts.query).get("token", [""])[0]
    path, is_page = parts.path.rstrip("/"), False
    for page in _PAGES:
        head, found, tail = path.partition(page)
        if found and (not tail or tail.startswith("/")):
            path, is_page = head, True
            break
    if (token or is_page) and not path.endswith("/caterva2"):
        path += "/caterva2"
    return ServiceUrl(urlunsplit((parts.scheme, parts.netloc, path, "", "")), token)

"""HTTP to another service: its URL, whom to trust, and a pool of connections that follows no redirection.

What is asked over it, and when it is asked again, is the business of the links.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from urllib.parse import unquote

import aiohttp

from ..config import Address, NetworkConfig
from ..errors import ConfigError, SourceUnavailableError

__all__ = ["READ_BUFFER_NBYTES", "base_of", "client_ssl_context", "open_session", "peer_of", "service_url", "tls_error"]

CONNECTIONS = 32  # at most: reads keep to a few, downloads and listeners hold theirs for long
READ_BUFFER_NBYTES = 512 << 10
_UNIX = "http+unix://"


def service_url(address: Address, network: NetworkConfig) -> str:
    """URL of a service of the same network: https when the network has certificates."""
    secure = (network.tls_cert or network.tls_ca) and not address.socket_path
    return address.url.replace("http://", "https://", 1) if secure else address.url


def client_ssl_context(network: NetworkConfig) -> ssl.SSLContext:
    """Trust of the system's certificates and of ``tls_ca``; host names are checked.

    Raises
    ------
    ConfigError
    """
    context = ssl.create_default_context()
    if network.tls_ca:
        try:
            context.load_verify_locations(network.tls_ca)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"cannot use [network] tls_ca {network.tls_ca}: {error}") from None
    return context


def base_of(url: str) -> str:
    """What requests are sent to, by connections that lead there (a socket has no host)."""
    return "http://localhost" if url.startswith(_UNIX) else url.rstrip("/")


def peer_of(url: str) -> str:
    """The service, for messages: its URL, or the path of its socket."""
    return _socket_path(url) if url.startswith(_UNIX) else url.rstrip("/")


def _socket_path(url: str) -> str:
    return unquote(url.removeprefix(_UNIX)).rstrip("/")


def open_session(
    url: str, ssl_context: ssl.SSLContext | None = None, headers: Mapping[str, str] | None = None
) -> aiohttp.ClientSession:
    """A pool of connections to the service at ``url``: no cookies, no proxies of the environment.

    Parameters
    ----------
    url : str
        ``http://``, ``https://`` or ``http+unix://%2Fpath``. The caller closes the session.
    headers : mapping, optional
        Sent with every request.
    """
    connector: aiohttp.BaseConnector
    if url.startswith(_UNIX):
        connector = aiohttp.UnixConnector(_socket_path(url), limit=CONNECTIONS)
    else:
        connector = aiohttp.TCPConnector(limit=CONNECTIONS, ssl=ssl_context or True, keepalive_timeout=60)
    tracing = aiohttp.TraceConfig()
    tracing.on_request_redirect.append(_refuse_redirection)  # WebSockets have no setting for that
    return aiohttp.ClientSession(
        connector=connector,
        headers=headers,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        timeout=aiohttp.ClientTimeout(total=None),
        read_bufsize=READ_BUFFER_NBYTES,
        trace_configs=[tracing],
    )


async def _refuse_redirection(session: object, context: object, params: aiohttp.TraceRequestRedirectParams) -> None:
    # A token must not travel to where another machine points.
    raise SourceUnavailableError(f"{params.url.origin()} answers with a redirection, which is not followed")


def tls_error(peer: str, error: aiohttp.ClientSSLError) -> SourceUnavailableError:
    """What a connection that could not be secured is for others."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return SourceUnavailableError(f"{peer} has a certificate that is not trusted: {error}")
    return SourceUnavailableError(f"cannot speak TLS with {peer}: {error}")

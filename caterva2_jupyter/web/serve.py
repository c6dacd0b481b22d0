"""Listening, one ready line, and a clean stop: what the main programs of all services do.

It knows addresses and signals; what a service is made of, and what it serves, is its own business.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import logging
import os
import signal
import socket
import ssl
import stat
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tornado.httpserver import HTTPServer
from tornado.web import Application

from .. import __version__
from ..config import LOG_LEVELS, SETTINGS, Address, NetworkConfig
from ..errors import ConfigError
from .allocator import keep_buffers

__all__ = [
    "Listener",
    "Service",
    "add_service_options",
    "check_statedir",
    "configure_logging",
    "listen",
    "run_service",
    "serve_on",
    "tls_context",
]

MAX_BODY_NBYTES = 64 << 20
MAX_HEADER_NBYTES = 64 << 10
IDLE_CONNECTION_S = 600
BODY_S = 60
STOP_S = 5
BACKLOG = 1024


class Service(Protocol):
    """What `run_service` runs."""

    def application(self) -> Application:
        """Its routes."""
        ...

    async def start(self, listener: Listener) -> None:
        """Begin to work; ``listener`` accepts requests already, and knows the real port."""
        ...

    async def stop(self) -> None:
        """Stop what works in the background and close what is open."""
        ...


@dataclass(slots=True)
class Listener:
    """A server that listens.

    Attributes
    ----------
    address : Address
        With the real port, when port 0 was asked for.
    url : str
        By which this machine reaches it.
    sockets : tuple of socket
        That it accepts from; other processes may too.
    """

    address: Address
    url: str
    _server: HTTPServer
    sockets: tuple[socket.socket, ...] = ()

    @property
    def reachable_url(self) -> str:
        """The URL for others: with this machine's name when it listens on every interface."""
        if self.address.socket_path or self.address.listen_host:
            return self.url
        return self.url.replace("//localhost:", f"//{socket.gethostname()}:", 1)

    async def close(self) -> None:
        """Accept nothing more, and close what is open."""
        self._server.stop()
        await self._server.close_all_connections()
        if self.address.socket_path:
            with suppress(FileNotFoundError):
                os.unlink(self.address.socket_path)


def tls_context(network: NetworkConfig) -> ssl.SSLContext | None:
    """For serving https; None when no certificate is set.

    Raises
    ------
    ConfigError
    """
    if not network.tls_cert:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(network.tls_cert, network.tls_key or None)
    except OSError as error:
        raise ConfigError(
            f"cannot use [network] tls_cert {network.tls_cert} with tls_key {network.tls_key or '(none)'}: "
            f"{error.strerror or error}; both have to be PEM files that this user can read"
        ) from None
    return context


def listen(application: Application, address: Address, network: NetworkConfig) -> Listener:
    """Listen at an address; port 0 is any free one.

    Raises
    ------
    ConfigError
        When the address is in use or cannot be listened at, or the certificate is not usable.
    """
    tls_context(network)  # before the address is taken
    try:
        sockets = [_bind_unix(address.socket_path)] if address.socket_path else _bind_tcp(address)
    except OSError as error:
        raise ConfigError(_cannot_listen(address, error)) from None
    server = serve_on(application, sockets, network)
    if address.socket_path:
        return Listener(address, address.url, server, tuple(sockets))
    real = Address(host=address.host, port=int(sockets[0].getsockname()[1]))
    host = "localhost" if not address.listen_host else real.host
    url = Address(host=host, port=real.port).url
    return Listener(real, url.replace("http:", "https:", 1) if network.tls_cert else url, server, tuple(sockets))


def serve_on(application: Application, sockets: Sequence[socket.socket], network: NetworkConfig) -> HTTPServer:
    """Serve on sockets that listen already."""
    server = HTTPServer(
        application,
        ssl_options=tls_context(network),
        max_body_size=MAX_BODY_NBYTES,
        max_header_size=MAX_HEADER_NBYTES,
        idle_connection_timeout=IDLE_CONNECTION_S,
        body_timeout=BODY_S,
    )
    server.add_sockets(sockets)
    return server


def _bind_tcp(address: Address) -> list[socket.socket]:
    """Sockets at all addresses of the host, on one port; those of a family that this machine lacks are left out."""
    found = socket.getaddrinfo(
        address.listen_host or None, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    sockets: list[socket.socket] = []
    port, problem = address.port, OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    for family, kind, protocol, _, where in dict.fromkeys(found):
        try:
            sock = socket.socket(family, kind, protocol)
        except OSError as error:  # no IPv6 here
            problem = error
            continue
        try:
            if os.name != "nt":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setblocking(False)
            sock.bind((where[0], port, *where[2:]))
            sock.listen(BACKLOG)
        except OSError as error:
            sock.close()
            problem = error
            if error.errno == errno.EADDRNOTAVAIL:
                continue
            for other in sockets:
                other.close()
            raise
        sockets.append(sock)
        port = sock.getsockname()[1]
    if not sockets:
        raise problem
    return sockets


def _bind_unix(path: str) -> socket.socket:
    """A socket at a path: that of a service which died is replaced, nothing else is."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except FileNotFoundError:
            pass
        except ConnectionRefusedError:
            if not stat.S_ISSOCK(os.lstat(path).st_mode):
                raise OSError(errno.EEXIST, "there is a file of that name, which is not a socket") from None
            os.unlink(path)
        else:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.bind(path)
        os.chmod(path, 0o600)  # nobody can connect before it listens
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _cannot_listen(address: Address, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"{address} is in use: stop the other program, or choose another address with --http"
    if error.errno == errno.EACCES:
        return f"not allowed to listen at {address}: choose a port from 1024 on, or another path, with --http"
    return f"cannot listen at {address} ({error.strerror or error}): choose another address with --http"


_EXAMPLES = {
    "broker": "cat2bro --http localhost:8000",
    "publisher": "cat2pub climate /data/climate --broker localhost:8000",
    "subscriber": "cat2sub --broker localhost:8000",
}


def add_service_options(parser: argparse.ArgumentParser, kept: str, section: str = "broker") -> None:
    """Add the options that the programs of all services have, and an example to the help.

    Parameters
    ----------
    kept : str
        What is kept in the state directory.
    section : str
        Section of the configuration; of publishers and subscribers there may be several, which have a broker.
    """
    parser.epilog = f"example: {_EXAMPLES[section]}"
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument("--conf", metavar="FILE", help="configuration file (default: caterva2.toml, if it is there)")
    if section != "broker":
        parser.add_argument("--id", default="", help=f"use the section [{section}.ID]")
        broker = _default("broker", "http")
        parser.add_argument(
            "--broker", metavar="ADDRESS", help=f"where the broker listens; '' for none (default: {broker})"
        )
    listen = f"listen at host:port or the path of a unix socket (default: {_default(section, 'http')})"
    parser.add_argument("--http", metavar="ADDRESS", help=listen)
    state = f"where {kept} kept (default: {_default(section, 'statedir')})"
    parser.add_argument("--statedir", metavar="DIR", help=state)
    levels = f"{', '.join(LOG_LEVELS)} (default: {_default(section, 'loglevel')})"
    parser.add_argument("--loglevel", metavar="LEVEL", help=levels)


def _default(section: str, key: str) -> str:
    return next(setting.default for setting in SETTINGS if (setting.section, setting.key) == (section, key))


def configure_logging(level: str) -> None:
    """Log to standard error; ``level`` is one of the configuration's."""
    number = logging.DEBUG if level == "trace" else getattr(logging, level.upper())
    logging.basicConfig(level=number, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    if level != "trace":
        for name in ("asyncio", "tornado.access"):
            logging.getLogger(name).setLevel(max(number, logging.WARNING))


def check_statedir(statedir: Path, section: str) -> None:
    """Make the state directory; a program whose state would be lost does not start.

    Parameters
    ----------
    statedir : Path
    section : str
        Of the configuration that may name another one.

    Raises
    ------
    ConfigError
    """
    try:
        statedir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=statedir):
            pass
    except OSError as error:
        raise ConfigError(
            f"cannot use {statedir} for the state ({error.strerror}): "
            f"choose another --statedir, or set statedir under [{section}]"
        ) from None


def run_service(program: str, label: str, address: Address, network: NetworkConfig, make: Callable[[], Service]) -> int:
    """Run a service until SIGINT or SIGTERM.

    Parameters
    ----------
    program : str
        Its command's name, for error messages.
    label : str
        What the ready line says it is: ``LABEL listening on URL``, the only line on standard output.
    make : callable
        Makes the service, inside the event loop.

    Returns
    -------
    int
        The exit code: 0, or 1 with one line on standard error when a setting cannot be used.
    """
    keep_buffers()
    try:
        asyncio.run(_run(label, address, network, make))
    except ConfigError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # before the loop had its own handler
        return 130
    return 0


async def _run(label: str, address: Address, network: NetworkConfig, make: Callable[[], Service]) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    service = make()
    try:
        listener = listen(service.application(), address, network)
        try:
            await service.start(listener)
            print(f"{label} listening on {listener.url}", flush=True)
            await stopped.wait()
        finally:
            await listener.close()
    finally:
        # A second signal must not wait for what does not stop.
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
        try:
            async with asyncio.timeout(STOP_S):
                await service.stop()
        except TimeoutError:
            logging.getLogger("caterva2_jupyter.web").warning("%s did not stop within %d s", label, STOP_S)

"""What all programs of clients share: the options that say which subscriber, and errors as one line with the cure."""

from __future__ import annotations

import argparse
from typing import Any

from ..config import LOG_LEVELS, load_config
from ..errors import (
    AuthenticationError,
    Caterva2Error,
    DatasetChangedError,
    DatasetNotFoundError,
    NotCachedError,
    RootNotFoundError,
    SelectionError,
    SourceUnavailableError,
)

__all__ = ["add_connection_options", "connection_arguments", "one_line"]

_CURES: tuple[tuple[type[Exception], str], ...] = (
    (RootNotFoundError, "`cat2cli roots` lists the roots"),
    (DatasetNotFoundError, "`cat2cli list ROOT` lists what is there"),
    (AuthenticationError, "give --username and --password, or --token"),
    (DatasetChangedError, "run the command again"),
    (SelectionError, "`cat2cli info DATASET` tells its shape"),
    (NotCachedError, "`cat2cli roots` tells when the publisher is back"),
    (SourceUnavailableError, "Start cat2sub, or name another subscriber with --subscriber URL"),
)


def add_connection_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that ``connection_arguments`` reads."""
    parser.add_argument("--conf", metavar="FILE", help="configuration file (default: caterva2.toml, if it is there)")
    parser.add_argument("--loglevel", choices=LOG_LEVELS, help="what is logged to standard error (default: warning)")
    parser.add_argument("--subscriber", metavar="URL", help="the subscriber to talk to (default: found, see the docs)")
    parser.add_argument("--token", help="token for it, such as Jupyter's")
    parser.add_argument("--username", "--user", metavar="EMAIL", help="log in as this user")
    parser.add_argument("--password", "--pass", metavar="TEXT", help="with this password")


def connection_arguments(options: argparse.Namespace) -> dict[str, Any]:
    """What to tell ``connect``, which finds what it is not told."""
    given = {"url": options.subscriber, **{key: getattr(options, key) for key in ("token", "username", "password")}}
    if options.conf is None:
        return given
    settings = load_config(options.conf).client(**given)
    return {key: getattr(settings, key) or None for key in (*given, "tls_ca")}


def one_line(error: Caterva2Error) -> str:
    """What went wrong and what to do about it."""
    message = " ".join(str(error).split())
    cure = next((text for cls, text in _CURES if isinstance(error, cls)), "")
    if not cure or cure in message or "give a token" in message:
        return message
    if isinstance(error, SourceUnavailableError) and not isinstance(error, NotCachedError) and message[-1:] != "?":
        return message  # something answers, or another service is away: the message says what to do
    return f"{message} {cure}" if message.endswith("?") else f"{message}: {cure}"

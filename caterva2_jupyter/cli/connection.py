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
    (DatasetNotFoundError, "`cat2cli list {root}` lists what is there"),
    (AuthenticationError, "give --username and --password, or --token"),
    (DatasetChangedError, "run the command again"),
    (SelectionError, "`cat2cli info {dataset}` tells its shape"),
    (NotCachedError, "`cat2cli roots` tells when the publisher is back"),
    (SourceUnavailableError, "Start cat2sub, or name another subscriber with --subscriber URL"),
)


_OF_INDICES = dict(_CURES)[SelectionError]
_TOLD = (
    "give a token",
    "log in with",
    "refuses that",
    "start it with",
    "did you mean",
    "nothing is below it",
    "; write ",
    ": write ",
)
"""In messages that tell what to do themselves."""


def add_connection_options(parser: argparse.ArgumentParser, *, is_listed: bool = True) -> None:
    """Add the options that ``connection_arguments`` reads.

    Parameters
    ----------
    parser : argparse.ArgumentParser
    is_listed : bool
        Does the help of this parser tell about them? That of a command leaves it to the program's.
    """

    def add(*names: str, told: str, **how: Any) -> None:
        parser.add_argument(*names, help=told if is_listed else argparse.SUPPRESS, **how)

    add("--conf", metavar="FILE", told="configuration file (default: caterva2.toml, if it is there)")
    levels = ", ".join(LOG_LEVELS)
    add("--loglevel", metavar="LEVEL", choices=LOG_LEVELS, told=f"what is logged: {levels} (default: warning)")
    found = "default: CATERVA2_URL, the Jupyter server around it, caterva2.toml, http://localhost:8002"
    add("--subscriber", metavar="URL", told=f"the subscriber to talk to ({found})")
    add("--token", metavar="TEXT", told="token for it, such as Jupyter's (default: CATERVA2_TOKEN)")
    add("--username", "--user", metavar="EMAIL", told="log in as this user (default: CATERVA2_USERNAME)")
    add("--password", "--pass", metavar="TEXT", told="with this password (default: CATERVA2_PASSWORD)")


def connection_arguments(options: argparse.Namespace) -> dict[str, Any]:
    """What to tell ``connect``, which finds what it is not told."""
    given = {"url": options.subscriber, **{key: getattr(options, key) for key in ("token", "username", "password")}}
    if options.conf is None:
        return given
    settings = load_config(options.conf).client(**given)
    return {key: getattr(settings, key) or None for key in (*given, "tls_ca")}


def one_line(error: Exception, address: str = "") -> str:
    """What went wrong and what to do about it.

    Parameters
    ----------
    error : Exception
        One of ours; an IndexError, TypeError or ValueError is of an index that does not fit.
    address : str
        ``ROOT/PATH[SELECTION]`` as it was given, for the cure.
    """
    message = " ".join(str(error).split())
    cure = next((text for cls, text in _CURES if isinstance(error, cls)), "")
    if not isinstance(error, Caterva2Error):
        cure = _OF_INDICES
    if not cure or any(told in message for told in (cure, *_TOLD)):
        return message
    dataset = address.partition("[")[0]
    cure = cure.format(root=dataset.removeprefix("cat2://").partition("/")[0] or "ROOT", dataset=dataset or "DATASET")
    if isinstance(error, SourceUnavailableError) and not isinstance(error, NotCachedError) and message[-1:] != "?":
        return message  # something answers, or another service is away: the message says what to do
    return f"{message} {cure}" if message.endswith("?") else f"{message}: {cure}"

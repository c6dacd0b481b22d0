"""``cat2adduser``: adds a user to a stand-alone subscriber, which may run meanwhile."""

from __future__ import annotations

import argparse
import secrets
import sys

from .. import __version__
from ..config import load_config
from ..errors import Caterva2Error
from .users import UserStore

__all__ = ["main"]


def main(argv: list[str] | None = None) -> int:
    """Command line.

    Returns
    -------
    int
        0, or 1 when the user cannot be added.
    """
    parser = argparse.ArgumentParser(
        prog="cat2adduser",
        description="Add a user to a stand-alone subscriber.",
        epilog="example: cat2adduser -S ada@example.org",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument("--conf", metavar="FILE", help="configuration file (default: caterva2.toml, if it is there)")
    parser.add_argument("--id", default="", help="the subscriber's section is [subscriber.ID]")
    parser.add_argument("--statedir", metavar="DIR", help="the subscriber's state directory (default: _caterva2/sub)")
    parser.add_argument("-S", "--superuser", action="store_true", help="may manage users")
    parser.add_argument("username", help="e-mail address")
    parser.add_argument("password", nargs="?", help="made up when it is not given")
    options = parser.parse_args(argv)
    password = options.password or secrets.token_urlsafe(12)
    try:
        config = load_config(options.conf).subscriber(ident=options.id, statedir=options.statedir)
        store = UserStore(config.statedir / "db.sqlite", config.max_users)
        try:
            store.add(options.username, password, is_superuser=options.superuser)
        finally:
            store.close()
    except Caterva2Error as error:
        print(f"cat2adduser: {error}", file=sys.stderr)
        return 1
    if not options.password:
        print(f"Password: {password}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

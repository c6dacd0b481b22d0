"""The commands of ``cat2cli`` about users; their output is that of the older system."""

from __future__ import annotations

import argparse

from ..client.client import Client
from .output import Output

__all__ = ["adduser", "deluser", "listusers"]


def adduser(client: Client, options: argparse.Namespace, out: Output) -> None:
    """Add a user."""
    made = client.users.add(options.newuser, options.newpass, is_superuser=options.superuser)
    password = made.get("password", options.newpass)
    text = f"User added: username={made['email']!r} password={password!r} superuser={options.superuser}"
    if options.json:
        out.json(text)
    else:
        out.line(text)


def deluser(client: Client, options: argparse.Namespace, out: Output) -> None:
    """Remove a user."""
    client.users.remove(options.user)
    text = f"User deleted: {options.user}"
    if options.json:
        out.json(text)
    else:
        out.line(text)


def listusers(client: Client, options: argparse.Namespace, out: Output) -> None:
    """List users."""
    users = client.users.list(options.user)
    if options.json:
        out.json(users)
        return
    for user in users:
        out.line(str(user))

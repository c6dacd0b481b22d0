"""Values of single settings, as people write them: what is allowed, and what it means."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from ..core.paths import parse_root_name
from ..core.roots import parse_service_url
from ..errors import ConfigError, IntegrityError
from .address import Address
from .sections import Grant
from .settings import Setting

__all__ = [
    "check_ident",
    "check_published_name",
    "check_value",
    "parse_grant",
    "parse_nbytes",
    "parse_publisher_url",
    "parse_tokens",
]

_KINDS = {
    "text": "a text",
    "bool": "true or false",
    "int": "a whole number",
    "number": "a number, not negative",
    "texts": "a list of texts",
    "groups": "a table of lists of users",
}
_GRANT_KEYS = ("roots", "users", "groups", "access")


def parse_nbytes(text: str | int | float) -> int:
    """A number of bytes: ``2048``, ``"10K"``, ``"1.5 GB"``; K, M, G and T are powers of 1024.

    >>> parse_nbytes("10K")
    10240
    """
    if isinstance(text, (int, float)) and not isinstance(text, bool) and 0 <= text < math.inf:
        return int(text)
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?\s*", str(text), re.IGNORECASE)
    if not match:
        raise ConfigError(f"{text!r} is not a number of bytes: write 500M or 10G")
    return (
        int(float(match.group(1)) * 1024 ** "KMGT".find(match.group(2).upper()) * 1024)
        if match.group(2)
        else int(float(match.group(1)))
    )


def check_published_name(name: str) -> None:
    """Refuse what cannot name a root at a broker.

    Raises
    ------
    ConfigError
    """
    try:
        parse_root_name(name)
    except ValueError as error:
        raise ConfigError(f"{error}: use letters, digits, '-', '_' and '.'") from None
    if name.startswith("@"):
        raise ConfigError(f"{name!r} cannot be published: names with @ are areas of subscribers")


def check_ident(ident: str) -> None:
    """Refuse what cannot be part of a section's name.

    Raises
    ------
    ConfigError
    """
    if "." in ident or "/" in ident:
        raise ConfigError(f"id {ident!r} must not hold '.' or '/'")


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(v, str) for v in value)


def parse_grant(form: object) -> Grant:
    """One table of ``[[subscriber.grants]]``.

    Raises
    ------
    ConfigError
    """
    if not isinstance(form, Mapping):
        raise ConfigError("a grant is a table: write [[subscriber.grants]] above it")
    unknown = set(form) - set(_GRANT_KEYS)
    if unknown:
        raise ConfigError(f"a grant has no key {min(unknown)!r}: there are {', '.join(_GRANT_KEYS)}")
    for key in ("roots", "users", "groups"):
        if not _are_texts(form.get(key, [])):
            raise ConfigError(f"{key} of a grant has to be a list of texts, not {form[key]!r}")
    access = form.get("access", "read")
    if access not in ("read", "write"):
        raise ConfigError(f'access of a grant is "read" or "write", not {access!r}')
    grant = Grant(
        tuple(form.get("roots", ())), tuple(form.get("users", ())), tuple(form.get("groups", ())), access == "write"
    )
    if not grant.roots or not (grant.users or grant.groups):
        raise ConfigError('a grant names roots = ["..."] and users = ["..."] or groups = ["..."]')
    if any(pattern.startswith("@personal") for pattern in grant.roots):
        raise ConfigError("@personal belongs to its user alone: it cannot be granted")
    return grant


def check_value(setting: Setting, value: object, where: str) -> None:
    """Refuse a value of another kind than the setting's.

    Raises
    ------
    ConfigError
    """
    if setting.kind == "bool":
        fine = isinstance(value, bool)
    elif setting.kind == "int":
        fine = isinstance(value, int) and not isinstance(value, bool)
    elif setting.kind == "number":
        fine = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf
    elif setting.kind == "texts":
        fine = _are_texts(value)
    elif setting.kind == "grants":
        if not isinstance(value, list):
            raise ConfigError(f"{where}: grants are tables: write [[subscriber.grants]] above each")
        for grant in value:
            try:
                parse_grant(grant)
            except ConfigError as error:
                raise ConfigError(f"{where}: {error}") from None
        fine = True
    elif setting.kind == "groups":
        fine = isinstance(value, Mapping) and all(_are_texts(members) for members in value.values())
    elif setting.kind == "nbytes":
        try:
            parse_nbytes(value)  # type: ignore[arg-type]
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None
        fine = True
    else:
        fine = isinstance(value, str)
    if not fine:
        raise ConfigError(f"{where} has to be {_KINDS[setting.kind]}, not {value!r}")


def parse_publisher_url(text: str) -> str:
    """The URL of a publisher to follow, from a URL, ``host:port`` or the path of a socket."""
    if "://" not in text:
        return Address.parse(text).url
    try:
        return parse_service_url(text)
    except IntegrityError:
        raise ConfigError(f"{text!r} is not the URL of a publisher: write http://host:port") from None


def parse_tokens(text: str) -> tuple[str, str]:
    """(publish token, read token) from a token file or variable."""
    parts = [p.strip() for p in re.split(r"[\n,]", text) if p.strip() and not p.strip().startswith("#")]
    named = {m.group(1): m.group(2) for p in parts if (m := re.fullmatch(r"(publish|read)\s*[:=]\s*(\S+)", p))}
    if len(parts) == 1 and not named:
        return parts[0], parts[0]
    if len(named) != len(parts):
        raise ConfigError("a network token is one text, or publish=TOKEN,read=TOKEN")
    return named.get("publish", ""), named.get("read", "")

"""What a user says about caching, and what is asked of the service for it."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Literal, cast, get_args
from urllib.parse import urlsplit

from ..core.answer_choice import Mode
from ..errors import ConfigError

__all__ = ["CachePolicy", "is_near", "parse_cache_policy", "read_mode"]

CachePolicy = Literal["auto", "fill", "bypass"]
"""``auto``: the smaller answer, exact values or blocks to keep. ``fill``: blocks, so that the cache has them.
``bypass``: exact values wherever they can be had, so that the cache is left to others."""

_MODES: dict[CachePolicy, Mode] = {"auto": "auto", "fill": "blocks", "bypass": "slice"}


def parse_cache_policy(text: str) -> CachePolicy:
    """The policy of that name.

    Raises
    ------
    ConfigError
        When there is none.

    Examples
    --------
    >>> parse_cache_policy("fill")
    'fill'
    """
    if text not in get_args(CachePolicy):
        raise ConfigError(f"no cache policy {text!r}: it is 'auto', 'fill' or 'bypass'")
    return cast("CachePolicy", text)


def read_mode(policy: CachePolicy) -> Mode:
    """The mode of a read request under a policy."""
    return _MODES[policy]


def is_near(url: str) -> bool:
    """Is a service on this machine, so that bytes cost less than compressing them well?

    Examples
    --------
    >>> is_near("http://127.0.0.1:8002"), is_near("https://example.org/jupyter")
    (True, False)
    """
    parts = urlsplit(url)
    if parts.scheme == "http+unix" or parts.hostname == "localhost":
        return True
    try:
        return ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False

"""What services and clients are started with: settings with their types, defaults filled in, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..core.link_mac import bearer_of, key_of
from ..errors import ConfigError
from .address import Address

__all__ = ["BrokerConfig", "ClientConfig", "Grant", "NetworkConfig", "PublisherConfig", "SubscriberConfig"]


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """Trust between services."""

    publish_token: str = field(default="", repr=False)
    read_token: str = field(default="", repr=False)
    insecure: bool = False
    tls_cert: str = ""
    tls_key: str = ""
    tls_ca: str = ""
    mac: bool = False

    @property
    def publish_bearer(self) -> str:
        """What is sent to prove the publish token: the token itself, unless it is the key of codes."""
        return bearer_of(self.publish_token) if self.mac and self.publish_token else self.publish_token

    @property
    def read_bearer(self) -> str:
        """The same for the read token."""
        return bearer_of(self.read_token) if self.mac and self.read_token else self.read_token

    @property
    def mac_key(self) -> bytes:
        """Key of the codes that prove answers; empty when there are none."""
        return key_of(self.read_token) if self.mac else b""

    def check_listen(self, address: Address) -> None:
        """Refuse to listen openly without a token.

        Raises
        ------
        ConfigError
        """
        if not (address.is_loopback or self.insecure or self.read_token):
            raise ConfigError(
                f"refusing to listen on {address} without a network token: set CATERVA2_NETWORK_TOKEN or "
                "[network] token_file, or write insecure = true under [network]"
            )


@dataclass(frozen=True, slots=True)
class BrokerConfig:
    http: Address
    statedir: Path
    loglevel: str
    heartbeat_s: float
    network: NetworkConfig


@dataclass(frozen=True, slots=True)
class PublisherConfig:
    id: str
    name: str
    root: Path
    http: Address
    statedir: Path
    loglevel: str
    broker: Address | None
    advertise: str
    poll_s: float
    quiet_s: float
    network: NetworkConfig
    workers: int = 1


@dataclass(frozen=True, slots=True)
class Grant:
    """Who may see some roots, and write to them.

    Attributes
    ----------
    roots : tuple of str
        Names, with ``*``, ``?`` and ``[...]``. Areas are meant only by a pattern that begins with ``@``.
    users : tuple of str
        E-mails, or names in Jupyter; ``*`` is everybody who has logged in.
    groups : tuple of str
    is_write : bool
    """

    roots: tuple[str, ...]
    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    is_write: bool = False


@dataclass(frozen=True, slots=True)
class SubscriberConfig:
    id: str
    http: Address
    statedir: Path
    loglevel: str
    broker: Address | None
    urlbase: str
    login: bool
    register: bool
    max_users: int | None
    quota_nbytes: int | None
    cachedir: Path
    cache_quota_nbytes: int
    publishers: tuple[str, ...]
    follow: tuple[str, ...]
    secret: str = field(repr=False)
    network: NetworkConfig
    upstreams: tuple[str, ...] = ()
    republish: tuple[str, ...] = ()
    rollbacks: str = "accept"
    anonymous: bool = False
    grants: tuple[Grant, ...] = ()
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    smtp: Address = field(default_factory=lambda: Address("localhost", 25))
    file: Path | None = None
    """What it was read from."""


@dataclass(frozen=True, slots=True)
class ClientConfig:
    url: str
    token: str = field(repr=False)
    username: str
    password: str = field(repr=False)
    tls_ca: str = ""

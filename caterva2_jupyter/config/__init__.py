"""Settings of services and clients: command line, then environment, then ``caterva2.toml``, then default."""

from __future__ import annotations

from .address import Address
from .loading import Config, load_config
from .sections import BrokerConfig, ClientConfig, Grant, NetworkConfig, PublisherConfig, SubscriberConfig
from .settings import LOG_LEVELS, SETTINGS, Setting
from .values import parse_nbytes

__all__ = [
    "LOG_LEVELS",
    "SETTINGS",
    "Address",
    "BrokerConfig",
    "ClientConfig",
    "Config",
    "Grant",
    "NetworkConfig",
    "PublisherConfig",
    "Setting",
    "SubscriberConfig",
    "load_config",
    "parse_nbytes",
]

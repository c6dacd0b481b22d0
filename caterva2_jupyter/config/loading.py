"""Where settings come from: command line, then environment, then ``caterva2.toml``, then default.

Nothing is read at import; ``load_config`` reads one file, once.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..errors import ConfigError
from .address import Address
from .sections import BrokerConfig, ClientConfig, Grant, NetworkConfig, PublisherConfig, SubscriberConfig
from .settings import LOG_LEVELS, SETTINGS
from .values import (
    check_ident,
    check_published_name,
    check_value,
    parse_grant,
    parse_nbytes,
    parse_publisher_url,
    parse_tokens,
)

__all__ = ["Config", "load_config"]

DEFAULT_FILE = "caterva2.toml"
MAX_WORKERS = 64


class Config:
    """What one configuration file, the environment and the command line say.

    Parameters
    ----------
    tables : mapping
        The parsed file.
    source : str
        Its name, for messages; empty when there is no file.
    environ : mapping
    """

    def __init__(self, tables: Mapping[str, Any], source: str, environ: Mapping[str, str]) -> None:
        self.source = source
        self._environ = environ
        self._tables = tables
        self._check()

    @property
    def has_file(self) -> bool:
        return bool(self.source)

    def _check(self) -> None:
        for section, table in self._tables.items():
            known = {s.key: s for s in SETTINGS if s.section == section}
            if not known:
                sections = ", ".join(dict.fromkeys(s.section for s in SETTINGS))
                raise ConfigError(f"{self.source}: unknown section [{section}]; there are {sections}")
            if not isinstance(table, Mapping):
                raise ConfigError(f"{self.source}: {section} has to be a section, [{section}]")
            for key, value in table.items():
                is_table = key in known and known[key].kind == "groups"
                nested = isinstance(value, Mapping) and section in ("publisher", "subscriber") and not is_table
                for name, inner in value.items() if nested else [(key, value)]:
                    where = f"[{section}.{key}]" if nested else f"[{section}]"
                    if name not in known:
                        raise ConfigError(f"{self.source}: unknown key {name!r} in {where}; see the table of settings")
                    check_value(known[name], inner, f"{self.source}: {where} {name}")

    def _get(self, section: str, key: str, ident: str, given: Any) -> Any:
        """The setting by precedence; None when nobody says anything."""
        if given is not None:
            return given
        setting = next(s for s in SETTINGS if s.section == section and s.key == key)
        if setting.env and self._environ.get(setting.env):
            return self._environ[setting.env]
        table = self._tables.get(section, {})
        if ident:
            table = table.get(ident, {})
        return table.get(key)

    def _network(self) -> NetworkConfig:
        def get(key: str) -> Any:
            return self._get("network", key, "", None)

        text = str(get("token") or "")
        if not text and get("token_file"):
            path = Path(str(get("token_file"))).expanduser()
            try:
                text = path.read_text()
                mode = path.stat().st_mode
            except OSError as error:
                raise ConfigError(f"cannot read [network] token_file {path}: {error.strerror}") from None
            except UnicodeDecodeError:
                raise ConfigError(f"[network] token_file {path} is not text") from None
            if mode & 0o077:
                raise ConfigError(f"{path} can be read by others: chmod 600 {path}")
        publish, read = parse_tokens(text)
        if get("mac") and not read:
            raise ConfigError("[network] mac = true needs a read token as its key: set CATERVA2_NETWORK_TOKEN")
        return NetworkConfig(
            publish, read, bool(get("insecure")), str(get("tls_cert") or ""), str(get("tls_key") or ""),
            str(get("tls_ca") or ""), bool(get("mac")),
        )  # fmt: skip

    def _loglevel(self, section: str, ident: str, given: str | None) -> str:
        level = str(self._get(section, "loglevel", ident, given) or "warning").lower()
        if level not in LOG_LEVELS:
            raise ConfigError(f"loglevel {level!r} is none of {', '.join(LOG_LEVELS)}")
        return level

    def _broker_address(self, given: str | None) -> Address | None:
        if given is not None:
            return Address.parse(given) if given else None
        if "broker" in self._tables or not self.has_file:
            return Address.parse(str(self._get("broker", "http", "", None) or "localhost:8000"))
        return None

    def _statedir(self, section: str, short: str, ident: str, given: str | None) -> Path:
        default = f"_caterva2/{short}.{ident}" if ident else f"_caterva2/{short}"
        return Path(str(self._get(section, "statedir", ident, given) or default)).expanduser()

    def broker(
        self, *, http: str | None = None, statedir: str | None = None, loglevel: str | None = None
    ) -> BrokerConfig:
        address = Address.parse(str(self._get("broker", "http", "", http) or "localhost:8000"))
        network = self._network()
        network.check_listen(address)
        return BrokerConfig(
            http=address,
            statedir=self._statedir("broker", "bro", "", statedir),
            loglevel=self._loglevel("broker", "", loglevel),
            heartbeat_s=float(self._get("broker", "heartbeat", "", None) or 5),
            network=network,
        )

    def publisher(
        self,
        *,
        ident: str = "",
        name: str | None = None,
        root: str | None = None,
        http: str | None = None,
        broker: str | None = None,
        statedir: str | None = None,
        loglevel: str | None = None,
        workers: int | None = None,
    ) -> PublisherConfig:
        check_ident(ident)

        def get(key: str, given: Any = None) -> Any:
            return self._get("publisher", key, ident, given)

        root_name = str(get("name", name) or "")
        if not root_name and ident and ident not in self._tables.get("publisher", {}):
            where = f"{self.source} has" if self.has_file else "no configuration file, so"
            raise ConfigError(
                f"{where} no section [publisher.{ident}]: write one, or run `cat2pub --id {ident} NAME ROOT`"
            )
        if not root_name:
            raise ConfigError("the root has no name: run `cat2pub NAME ROOT`, or set name under [publisher]")
        check_published_name(root_name)
        nworkers = get("workers", workers)
        nworkers = 1 if nworkers is None else int(nworkers)
        if not 1 <= nworkers <= MAX_WORKERS:
            raise ConfigError(f"workers = {nworkers} means nothing: write 1 to {MAX_WORKERS}")
        address = Address.parse(str(get("http", http) or "localhost:8001"))
        network = self._network()
        network.check_listen(address)
        return PublisherConfig(
            id=ident,
            name=root_name,
            root=Path(str(get("root", root) or "data")).expanduser(),
            http=address,
            statedir=self._statedir("publisher", "pub", ident, statedir),
            loglevel=self._loglevel("publisher", ident, loglevel),
            broker=self._broker_address(broker),
            advertise=str(get("advertise") or ""),
            poll_s=float(get("poll") or 0),
            quiet_s=float(get("quiet") if get("quiet") is not None else 0.2),
            network=network,
            workers=nworkers,
        )

    def subscriber(
        self,
        *,
        ident: str = "",
        http: str | None = None,
        broker: str | None = None,
        publishers: tuple[str, ...] = (),
        upstreams: tuple[str, ...] = (),
        republish: tuple[str, ...] = (),
        statedir: str | None = None,
        loglevel: str | None = None,
    ) -> SubscriberConfig:
        check_ident(ident)

        def get(key: str, given: Any = None) -> Any:
            return self._get("subscriber", key, ident, given)

        address = Address.parse(str(get("http", http) or "localhost:8002"))
        network = self._network()
        secret = str(get("secret") or "")
        login = bool(secret) if get("login") is None else bool(get("login"))
        if login and not secret:
            raise ConfigError("login = true needs a secret: set CATERVA2_SECRET to a long random text")
        if not login:
            network.check_listen(address)
        grants, groups = self.grants(ident)
        if grants and not login:
            raise ConfigError("grants need to know who somebody is: set CATERVA2_SECRET, so that users log in")
        state = self._statedir("subscriber", "sub", ident, statedir)
        cachedir = get("cachedir")
        urlbase = str(get("urlbase") or get("url") or "").rstrip("/")
        if urlbase and urlsplit(urlbase).scheme not in ("http", "https"):
            raise ConfigError(f"urlbase {urlbase!r} is not a URL: write http://host:port/prefix")
        again = tuple(republish) or tuple(get("republish") or ())
        if again and self._broker_address(broker) is None:
            raise ConfigError("republish needs a broker: give --broker, or write a section [broker]")
        for name in again:
            check_published_name(name)
        rollbacks = str(get("rollbacks") or "accept")
        if rollbacks not in ("accept", "refuse"):
            raise ConfigError(f"rollbacks {rollbacks!r} is neither accept nor refuse")
        return SubscriberConfig(
            id=ident,
            http=address,
            statedir=state,
            loglevel=self._loglevel("subscriber", ident, loglevel),
            broker=self._broker_address(broker),
            urlbase=urlbase or address.url,
            login=login,
            register=bool(get("register")),
            max_users=get("maxusers"),
            quota_nbytes=None if get("quota") is None else parse_nbytes(get("quota")),
            cachedir=Path(str(cachedir)).expanduser() if cachedir else state / "cache",
            cache_quota_nbytes=parse_nbytes(get("cachequota") if get("cachequota") is not None else "10G"),
            publishers=tuple(parse_publisher_url(p) for p in tuple(publishers) or tuple(get("publishers") or ())),
            follow=tuple(get("follow") or ()),
            secret=secret,
            network=network,
            upstreams=tuple(parse_publisher_url(u) for u in tuple(upstreams) or tuple(get("upstreams") or ())),
            republish=again,
            rollbacks=rollbacks,
            anonymous=bool(get("anonymous")),
            grants=grants,
            groups=groups,
            smtp=Address.parse(str(get("smtp") or "localhost:25")),
            file=Path(self.source).absolute() if self.source else None,
        )

    def grants(self, ident: str = "") -> tuple[tuple[Grant, ...], Mapping[str, tuple[str, ...]]]:
        """Who may see which roots of a subscriber, and who is in which group.

        Raises
        ------
        ConfigError
        """
        grants = self._get("subscriber", "grants", ident, None) or ()
        groups = self._get("subscriber", "groups", ident, None) or {}
        return tuple(parse_grant(grant) for grant in grants), {name: tuple(those) for name, those in groups.items()}

    def client(
        self,
        *,
        url: str | None = None,
        token: str | None = None,
        username: str | None = None,
        password: str | None = None,
    ) -> ClientConfig:
        def get(key: str, given: str | None) -> str:
            return str(self._get("client", key, "", given) or "")

        subscriber = self._tables.get("subscriber", {})
        fallback = subscriber.get("urlbase") or subscriber.get("url") or ""
        if not fallback and isinstance(subscriber.get("http"), str):
            fallback = Address.parse(subscriber["http"]).url
        return ClientConfig(
            url=(get("url", url) or str(fallback) or "http://localhost:8002").rstrip("/"),
            token=get("token", token),
            username=get("username", username),
            password=get("password", password),
            tls_ca=str(self._get("network", "tls_ca", "", None) or ""),
        )


def load_config(path: str | Path | None = None, environ: Mapping[str, str] | None = None) -> Config:
    """Read a configuration file.

    Parameters
    ----------
    path : path, optional
        The file; without it ``caterva2.toml`` in the current directory, if there is one.
    environ : mapping, optional
        Environment variables; ``os.environ`` by default.

    Raises
    ------
    ConfigError
        When a named file is missing, is not TOML, or has unknown sections, keys or wrong types.
    """
    environ = os.environ if environ is None else environ
    file = Path(path) if path is not None else Path(DEFAULT_FILE)
    if path is None and not file.is_file():
        return Config({}, "", environ)
    try:
        tables = tomllib.loads(file.read_text())
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not TOML: {error}") from None
    return Config(tables, str(file), environ)

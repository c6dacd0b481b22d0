"""Settings of services and clients: command line, then environment, then ``caterva2.toml``, then default.

``SETTINGS`` is the one table of every key: the documentation, the sample files and the refusal of unknown
keys come from it. Nothing is read at import; ``load_config`` reads one file, once.
"""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from .core.link_mac import bearer_of, key_of
from .errors import ConfigError, IntegrityError

__all__ = [
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

LOG_LEVELS = ("critical", "error", "warning", "info", "debug", "trace")
DEFAULT_FILE = "caterva2.toml"
MAX_WORKERS = 64


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of the configuration file."""

    section: Literal["broker", "publisher", "subscriber", "client", "network"]
    key: str
    kind: Literal["text", "bool", "int", "nbytes", "number", "texts", "grants", "groups"]
    default: str
    meaning: str
    env: str = ""


def _table(*rows: tuple[str, ...]) -> tuple[Setting, ...]:
    return tuple(Setting(*row) for row in rows)  # type: ignore[arg-type]


SETTINGS = _table(
    ("broker", "http", "text", "localhost:8000", "Where the broker listens: `host:port`, `[v6]:port` or the path of a unix socket. Publishers and subscribers find it here too; a file without a `[broker]` section makes the subscriber stand-alone."),
    ("broker", "statedir", "text", "_caterva2/bro", "Where it keeps its state."),
    ("broker", "loglevel", "text", "warning", "critical, error, warning, info, debug or trace."),
    ("broker", "heartbeat", "number", "5", "Seconds between heartbeats; a publisher that misses two is offline."),
    ("publisher", "http", "text", "localhost:8001", "Where the publisher listens."),
    ("publisher", "statedir", "text", "_caterva2/pub[.ID]", "Where it keeps the index of its root and its identity."),
    ("publisher", "loglevel", "text", "warning", "As for the broker."),
    ("publisher", "name", "text", "", "Name of the root (also the first argument of `cat2pub`)."),
    ("publisher", "root", "text", "data", "Directory or HDF5 file to serve (also the second argument)."),
    ("publisher", "advertise", "text", "", "URL by which subscribers reach this publisher, when it is not `http` as it stands (behind a proxy, or listening on every interface)."),
    ("publisher", "poll", "number", "0", "Seconds between looks at a file system that tells no changes (network file systems); 0: be told."),
    ("publisher", "quiet", "number", "0.2", "Seconds that a file has to be quiet before it is announced."),
    ("publisher", "workers", "int", "1", "Processes that serve, on one port; the first one also keeps the index. Two or more help where one core is not enough for the readers."),
    ("subscriber", "http", "text", "localhost:8002", "Where the stand-alone subscriber listens."),
    ("subscriber", "statedir", "text", "_caterva2/sub[.ID]", "Where it keeps areas and users, and its cache unless `cachedir` is set."),
    ("subscriber", "loglevel", "text", "warning", "As for the broker."),
    ("subscriber", "urlbase", "text", "http://localhost:8002", "URL by which clients reach it; its path is the prefix of every route. `url` is an alias."),
    ("subscriber", "url", "text", "", "Alias of `urlbase`."),
    ("subscriber", "login", "bool", "true if CATERVA2_SECRET is set, else false", "Users have to log in; `false` beats the secret."),
    ("subscriber", "register", "bool", "false", "People may register themselves."),
    ("subscriber", "maxusers", "int", "", "Most users that may be added; none is no limit."),
    ("subscriber", "anonymous", "bool", "false", "Where users log in, strangers may read publishers' roots too (of those with grants, what `*` is granted)."),
    ("subscriber", "grants", "grants", "", "Tables `[[subscriber.grants]]`: `roots` (names, with `*` and `?`), `users`, `groups`, `access` (`read` or `write`). As soon as there is one, roots that nobody is granted are hidden."),
    ("subscriber", "groups", "groups", "", "Table `[subscriber.groups]`: groups of users by name, for grants."),
    ("subscriber", "smtp", "text", "localhost:25", "Mail server that takes the mails of forgotten passwords. (With an `urlbase` on localhost they are logged instead.)"),
    ("subscriber", "quota", "nbytes", "", "Bytes that the areas may take (`10K`, `2M`, `1.5G`); none is no limit."),
    ("subscriber", "cachedir", "text", "", "Where the cache is, when not under `statedir`."),
    ("subscriber", "cachequota", "nbytes", "10G", "Bytes that cached blocks may take."),
    ("subscriber", "publishers", "texts", "[]", "URLs of publishers to follow with no broker."),
    ("subscriber", "upstreams", "texts", "[]", "URLs of other subscribers to follow roots of; they keep what is read through them."),
    ("subscriber", "republish", "texts", "[]", "Roots that are followed to announce through the broker, under their names, served from the cache."),
    ("subscriber", "follow", "texts", "[]", "Roots to follow from the start; others are followed when asked for."),
    ("subscriber", "secret", "text", "", "Signs logins; better given by the environment.", "CATERVA2_SECRET"),
    ("client", "url", "text", "http://localhost:8002", "The subscriber that clients talk to.", "CATERVA2_URL"),
    ("client", "token", "text", "", "Token for it, such as Jupyter's.", "CATERVA2_TOKEN"),
    ("client", "username", "text", "", "E-mail to log in with.", "CATERVA2_USERNAME"),
    ("client", "password", "text", "", "Password to log in with.", "CATERVA2_PASSWORD"),
    ("network", "token_file", "text", "", "File (mode 0600) with the lines `publish: TOKEN` and `read: TOKEN`, or one token for both; services then trust only each other."),
    ("network", "token", "text", "", "The same as text: `TOKEN`, or `publish=TOKEN,read=TOKEN`.", "CATERVA2_NETWORK_TOKEN"),
    ("network", "mac", "bool", "false", "Services prove each answer to each other with a code that is keyed by the read token, so that a change on the way is noticed; all of them have to have it. TLS does more."),
    ("network", "insecure", "bool", "false", "Listen on other than loopback addresses without a token."),
    ("network", "tls_cert", "text", "", "Certificate (chain) of the services, PEM; they then serve https."),
    ("network", "tls_key", "text", "", "Its private key."),
    ("network", "tls_ca", "text", "", "Certificates to trust besides the system's."),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Address:
    """Where a service listens: a host and port, or a unix socket."""

    host: str = ""
    port: int = 0
    socket_path: str = ""

    @classmethod
    def parse(cls, text: str) -> Address:
        """``host:port``, ``[v6]:port``, ``*:port``, a path, or a URL of any of those.

        >>> Address.parse("localhost:8000").url
        'http://localhost:8000'
        """
        bare = text.removeprefix("http://").removeprefix("https://").rstrip("/")
        # Any other name without a port is a host whose port was forgotten.
        if "/" in bare or bare.endswith((".sock", ".socket")):
            return cls(socket_path=text.removeprefix("unix:"))
        host, _, port = bare.rpartition(":")
        if not port.isascii() or not port.isdigit() or int(port) > 65535:
            raise ConfigError(f"{text!r} is not an address: write host:port, [v6]:port or /path/of/a/unix/socket")
        return cls(host=host.strip("[]"), port=int(port))

    @property
    def is_loopback(self) -> bool:
        return bool(self.socket_path) or self.host in ("localhost", "::1") or self.host.startswith("127.")

    @property
    def listen_host(self) -> str:
        return "" if self.host in ("*", "0.0.0.0") else self.host  # noqa: S104 - what users write, refused without a token

    @property
    def url(self) -> str:
        """The address as others reach it (``http+unix://%2Fpath`` for a socket)."""
        if self.socket_path:
            return "http+unix://" + os.path.abspath(self.socket_path).replace("%", "%25").replace("/", "%2F")
        return f"http://{self}"

    def __str__(self) -> str:
        if self.socket_path:
            return self.socket_path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


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
                    _check_kind(known[name], inner, f"{self.source}: {where} {name}")

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
        publish, read = _parse_tokens(text)
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
        _check_ident(ident)

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
        _check_published_name(root_name)
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
        _check_ident(ident)

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
            _check_published_name(name)
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
            publishers=tuple(_publisher_url(p) for p in tuple(publishers) or tuple(get("publishers") or ())),
            follow=tuple(get("follow") or ()),
            secret=secret,
            network=network,
            upstreams=tuple(_publisher_url(u) for u in tuple(upstreams) or tuple(get("upstreams") or ())),
            republish=again,
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
        return tuple(_parse_grant(grant) for grant in grants), {name: tuple(those) for name, those in groups.items()}

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


def _check_published_name(name: str) -> None:
    """Refuse what cannot name a root at a broker.

    Raises
    ------
    ConfigError
    """
    from .core.paths import parse_root_name

    try:
        parse_root_name(name)
    except ValueError as error:
        raise ConfigError(f"{error}: use letters, digits, '-', '_' and '.'") from None
    if name.startswith("@"):
        raise ConfigError(f"{name!r} cannot be published: names with @ are areas of subscribers")


def _check_ident(ident: str) -> None:
    if "." in ident or "/" in ident:
        raise ConfigError(f"id {ident!r} must not hold '.' or '/'")


_KINDS = {
    "text": "a text",
    "bool": "true or false",
    "int": "a whole number",
    "number": "a number, not negative",
    "texts": "a list of texts",
    "groups": "a table of lists of users",
}
_GRANT_KEYS = ("roots", "users", "groups", "access")


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(v, str) for v in value)


def _parse_grant(form: object) -> Grant:
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


def _check_kind(setting: Setting, value: object, where: str) -> None:
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
                _parse_grant(grant)
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


def _publisher_url(text: str) -> str:
    """The URL of a publisher to follow, from a URL, ``host:port`` or the path of a socket."""
    from .core.roots import parse_service_url

    if "://" not in text:
        return Address.parse(text).url
    try:
        return parse_service_url(text)
    except IntegrityError:
        raise ConfigError(f"{text!r} is not the URL of a publisher: write http://host:port") from None


def _parse_tokens(text: str) -> tuple[str, str]:
    """(publish token, read token) from a token file or variable."""
    parts = [p.strip() for p in re.split(r"[\n,]", text) if p.strip() and not p.strip().startswith("#")]
    named = {m.group(1): m.group(2) for p in parts if (m := re.fullmatch(r"(publish|read)\s*[:=]\s*(\S+)", p))}
    if len(parts) == 1 and not named:
        return parts[0], parts[0]
    if len(named) != len(parts):
        raise ConfigError("a network token is one text, or publish=TOKEN,read=TOKEN")
    return named.get("publish", ""), named.get("read", "")

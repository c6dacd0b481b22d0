"""The one table of every setting: the documentation, the sample files and the refusal of unknown keys come from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["LOG_LEVELS", "SETTINGS", "Setting"]

LOG_LEVELS = ("critical", "error", "warning", "info", "debug", "trace")


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
    ("publisher", "poll", "number", "0", "Seconds between looks at a file system that tells no changes (network file systems); 0: be told (by Linux; other systems are looked at every 2 s)."),
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
    ("subscriber", "rollbacks", "text", "accept", "`accept`: datasets that go back to an older state (a restored backup) are read as they are, and marked; `refuse`: the newer state stays listed, and is read as far as it is kept."),
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

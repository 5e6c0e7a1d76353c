"""Where a Redis is, read from its URL. What is wrong with one is said without repeating any of it: it holds secrets."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

__all__ = ["Address", "Kind", "Place", "parse"]

Place = tuple[str, int]
"""Host and port."""

_PORT, _SENTINEL_PORT = 6379, 26379
_PLACE = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.%]+)\]|(?P<name>[^\s:,/@\[\]]+))(?::(?P<port>\d{1,5}))?")
_DATABASE = re.compile(r"\d{1,5}")
_CERTIFICATE_CHECKS = ("none", "optional", "required")
_TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


class Kind(Enum):
    """How the server is found."""

    SERVER = "one server"
    SOCKET = "one server on a socket of this machine"
    SENTINEL = "the server that Sentinels name"
    CLUSTER = "the cluster's node that has the tenant's slot"


_SCHEMES = {
    "redis": (Kind.SERVER, False),
    "rediss": (Kind.SERVER, True),
    "unix": (Kind.SOCKET, False),
    "redis+sentinel": (Kind.SENTINEL, False),
    "rediss+sentinel": (Kind.SENTINEL, True),
    "redis+cluster": (Kind.CLUSTER, False),
    "rediss+cluster": (Kind.CLUSTER, True),
}


@dataclass(frozen=True, slots=True)
class Address:
    """`places`: the server, the Sentinels, or some of the cluster's nodes; none of a socket, which has a `path`.

    `master`: the name under which Sentinels watch it, empty with other kinds. `tls`: options of the connection, None
    without TLS. Credentials are as they are sent, None where there is none.
    """

    kind: Kind
    places: tuple[Place, ...] = ()
    path: str = ""
    master: str = ""
    database: int = 0
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    sentinel_username: str | None = field(default=None, repr=False)
    sentinel_password: str | None = field(default=None, repr=False)
    tls: dict[str, Any] | None = None


def parse(url: str) -> Address:
    """The address in a URL: `redis://`, `unix://`, `redis+sentinel://` or `redis+cluster://`, `rediss...` for TLS.

    Raises:
        ValueError: it is none; the message says of it what is wrong, and repeats nothing of it.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError("is not a URL") from None
    if parts.scheme not in _SCHEMES:
        raise ValueError(
            "begins with none of redis://, unix://, redis+sentinel://, redis+cluster:// (for TLS: rediss://, "
            "rediss+sentinel://, rediss+cluster://)"
        )
    if parts.fragment:
        raise ValueError("holds a #, which must be written %23 in a password")
    kind, secure = _SCHEMES[parts.scheme]
    credentials, _, hosts = parts.netloc.rpartition("@")
    username, _, password = credentials.partition(":")
    places = () if kind is Kind.SOCKET else _places(hosts, kind)
    options = _options(parts.query, kind, secure)
    path, master, database = _path(parts.path, kind)
    return Address(
        kind=kind,
        places=places,
        path=path,
        master=master,
        database=_database(options.pop("db")) if "db" in options and not database else database,
        username=options.pop("username", unquote(username)) or None,
        password=options.pop("password", unquote(password)) or None,
        sentinel_username=options.pop("sentinel_username", None),
        sentinel_password=options.pop("sentinel_password", None),
        tls={name: _tls_value(name, value) for name, value in options.items()} if secure else None,
    )


def _path(path: str, kind: Kind) -> tuple[str, str, int]:
    """(path of the socket, name of the master, database number) of a URL's path."""
    if kind is Kind.SOCKET:
        if len(path) < 2:
            raise ValueError("must name the socket: unix:///run/redis.sock")
        return unquote(path), "", 0
    first, _, rest = path.removeprefix("/").partition("/")
    if kind is Kind.SENTINEL:
        if not first:
            raise ValueError("must end in the name by which the Sentinels know it: .../master-name")
        return "", unquote(first), _database(rest)
    if rest:
        raise ValueError("may end in /<database number>, nothing else")
    database = _database(first)
    if kind is Kind.CLUSTER and database:
        raise ValueError("must not name a database: a cluster has only number 0")
    return "", "", database


def _database(text: str) -> int:
    if text and not _DATABASE.fullmatch(text):
        raise ValueError("may end in /<database number>, nothing else")
    return int(text or 0)


def _places(hosts: str, kind: Kind) -> tuple[Place, ...]:
    found = []
    for item in hosts.split(","):
        match = _PLACE.fullmatch(item.strip())
        port = int(match["port"] or (_SENTINEL_PORT if kind is Kind.SENTINEL else _PORT)) if match else 0
        if match is None or not 0 < port < 65536:
            raise ValueError("must name host or host:port after the // (an @, : or / in a password is written %40 ...)")
        found.append((match["six"] or unquote(match["name"]), port))
    if kind is Kind.SERVER and len(found) > 1:
        raise ValueError("names several hosts: write redis+sentinel:// or redis+cluster://")
    return tuple(found)


def _options(query: str, kind: Kind, secure: bool) -> dict[str, str]:
    known = {
        *(("db",) if kind in (Kind.SERVER, Kind.SOCKET) else ()),
        *(("username", "password") if kind is Kind.SOCKET else ()),
        *(("sentinel_username", "sentinel_password") if kind is Kind.SENTINEL else ()),
        *(("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname") if secure else ()),
    }
    given = dict(parse_qsl(query, keep_blank_values=True))
    if unknown := given.keys() - known:
        # A name is repeated only when it looks like one.
        names = ", ".join(sorted(name for name in unknown if re.fullmatch(r"[a-z_]{1,30}", name))) or "something"
        hint = "" if secure or not any(name.startswith("ssl_") for name in unknown) else "; TLS needs rediss"
        raise ValueError(f"has options that mean nothing here: {names}{hint}")
    return given


def _tls_value(name: str, value: str) -> Any:
    if name == "ssl_check_hostname":
        if value.lower() not in _TRUTHS:
            raise ValueError("ssl_check_hostname must be true or false")
        return _TRUTHS[value.lower()]
    if name == "ssl_cert_reqs" and value not in _CERTIFICATE_CHECKS:
        raise ValueError("ssl_cert_reqs must be none, optional or required")
    return value

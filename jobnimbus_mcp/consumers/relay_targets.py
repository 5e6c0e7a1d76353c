"""RelayTarget: another system that is told of changes, which of them, and how the setting that names it is read.

The messages never repeat a value: a target's URL is as good as a password with n8n, Zapier and their like.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import orjson

from jobnimbus_mcp.consumers.relay_addresses import Reach, reach_of
from jobnimbus_mcp.events.event import Event

__all__ = ["SOURCES", "TARGETS_MOST", "RelayTarget", "parse_targets"]

TARGETS_MOST = 32
"""Each is a consumer of its own, with connections and a group of its own."""

SOURCES = ("webhook", "write", "catch_up", "admin")

_FIELDS = frozenset({"url", "name", "events", "instances", "sources", "secret"})
_NAME = re.compile(r"[a-z0-9-]{1,40}")
_PATTERN = re.compile(r"(?:[a-z_]+|\*)\.(?:[a-z_]+|\*)")
_URL = re.compile(r"[!-\[\]-~]{1,2000}")
_HOST_NAME = re.compile(r"[a-z0-9_](?:[a-z0-9._-]{0,251}[a-z0-9_.])?")
_SECRET_PREFIX = "whsec_"
_SECRET_MIN = 16


@dataclass(frozen=True, slots=True)
class RelayTarget:
    """`url`: where events are posted. `key`: what they are signed with. `events`: patterns over `Event.name`, such as
    `job.*`. `instances`, `sources`: whose events and from where; None: of all."""

    name: str
    url: str = field(repr=False)
    key: bytes = field(repr=False)
    events: tuple[str, ...] = ("*.*",)
    instances: frozenset[str] | None = None
    sources: frozenset[str] | None = None

    @property
    def plain(self) -> bool:
        """Without TLS."""
        return urlsplit(self.url).scheme != "https"

    def chooses(self, event: Event) -> bool:
        """Whether this target wants to hear of it. An invalidation about no record is no change in JobNimbus."""
        return (
            bool(event.record_id)
            and (self.instances is None or event.instance in self.instances)
            and (self.sources is None or event.source in self.sources)
            and any(_fits(pattern, event.name) for pattern in self.events)
        )


def parse_targets(
    text: str, *, secret: str | None, allow_private: bool, instances: Collection[str]
) -> tuple[RelayTarget, ...]:
    """The targets of `RELAY_TARGETS`: URLs separated by commas, or a JSON array of objects
    `{"url", "name"?, "events"?, "instances"?, "sources"?, "secret"?}`; none for an empty text.

    `secret`: of targets that have none of their own: `whsec_` and base64, or a text of 16 characters or more, whose
    bytes are the key. `allow_private`: http:// and private addresses are allowed. `instances`: the accounts there are.

    Raises:
        ValueError: it says what is wrong with which target, and repeats no value.
    """
    told = _told(text.strip())
    if len(told) > TARGETS_MOST:
        raise ValueError(f"at most {TARGETS_MOST} targets")
    targets: list[RelayTarget] = []
    for number, fields in enumerate(told, 1):
        try:
            targets.append(_target(fields, secret, allow_private, instances))
        except ValueError as wrong:
            raise ValueError(f"target {number}: {wrong}") from None
    if len({target.name for target in targets}) < len(targets):
        raise ValueError('every target needs a "name" of its own, and no two without a name the same URL')
    return tuple(targets)


def _told(text: str) -> Sequence[Mapping[str, Any]]:
    if not text.startswith(("[", "{")):
        return [{"url": part} for item in text.split(",") if (part := item.strip())]
    try:
        told = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise ValueError("it is no JSON") from None
    if not isinstance(told, list) or not all(isinstance(item, dict) for item in told):
        raise ValueError("it must be URLs separated by commas, or a JSON array of objects")
    return told


def _target(
    fields: Mapping[str, Any], secret: str | None, allow_private: bool, instances: Collection[str]
) -> RelayTarget:
    if not fields.keys() <= _FIELDS:
        raise ValueError(f"a target has these fields and no others: {', '.join(sorted(_FIELDS))}")
    url, host = _url(fields.get("url"), allow_private)
    name = fields.get("name", _name_of(url, host))
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError("a name is 1 to 40 lower-case letters, digits or -")
    events = _texts(fields, "events")
    if events is not None and not all(event == "*" or _PATTERN.fullmatch(event) for event in events):
        raise ValueError('"events" are patterns such as job.updated, job.* or *.deleted')
    accounts = _texts(fields, "instances")
    if accounts is not None and not set(accounts) <= set(instances):
        raise ValueError('"instances" names an account that is not configured')
    sources = _texts(fields, "sources")
    if sources is not None and not set(sources) <= set(SOURCES):
        raise ValueError(f'"sources" are some of {", ".join(SOURCES)}')
    return RelayTarget(
        name,
        url,
        _key(fields.get("secret", secret)),
        ("*.*",) if events is None else tuple("*.*" if event == "*" else event for event in events),
        None if accounts is None else frozenset(accounts),
        None if sources is None else frozenset(sources),
    )


def _url(url: Any, allow_private: bool) -> tuple[str, str]:
    """(the URL, its host)."""
    if not isinstance(url, str) or not _URL.fullmatch(url):
        raise ValueError('"url" must be an https:// URL in ASCII, percent-encoded, of at most 2000 characters')
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:  # brackets that do not match, a port that is no number
        raise ValueError('"url" is no URL') from None
    if parts.scheme != "https" and not (parts.scheme == "http" and allow_private):
        raise ValueError('"url" must be https:// (http:// in a private network, with RELAY_ALLOW_PRIVATE)')
    if "@" in parts.netloc or "#" in url:
        raise ValueError('"url" must have no user and no fragment')
    literal = _is_address(host)
    if port == 0 or not (literal or _HOST_NAME.fullmatch(host)):
        raise ValueError('"url" must name a host, in ASCII, and a port of its own or none')
    if parts.scheme == "http" and literal and reach_of(host) is not Reach.PRIVATE:
        raise ValueError("http:// is for private addresses only; use https://")
    return url, host


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _name_of(url: str, host: str) -> str:
    """The host, readable in a trace, and a few digits for two URLs of one host."""
    digest = hashlib.sha256(url.encode()).hexdigest()[:8]
    return f"{re.sub('[^a-z0-9]+', '-', host).strip('-')[:31]}-{digest}".lstrip("-")


def _key(secret: Any) -> bytes:
    if secret is None:
        raise ValueError(
            "it has no secret to be signed with: give it one, or set RELAY_SIGNING_SECRET for all"
            " (without that, WEBHOOK_SIGNING_SECRET is used)"
        )
    if not isinstance(secret, str):
        raise ValueError("a secret is a text")
    if not secret.startswith(_SECRET_PREFIX):
        if len(secret) < _SECRET_MIN:
            raise ValueError(f"its secret must have at least {_SECRET_MIN} characters")
        return secret.encode()
    encoded = secret.removeprefix(_SECRET_PREFIX).rstrip("=")
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except binascii.Error:
        raise ValueError("what follows whsec_ in its secret must be base64") from None
    if len(key) < _SECRET_MIN:
        raise ValueError(f"its secret must hold at least {_SECRET_MIN} bytes in base64")
    return key


def _texts(fields: Mapping[str, Any], name: str) -> tuple[str, ...] | None:
    if name not in fields:
        return None
    values = fields[name]
    if not isinstance(values, list) or not values or not all(isinstance(value, str) for value in values):
        raise ValueError(f'"{name}" must be a list of texts; without it, all are meant')
    return tuple(values)


def _fits(pattern: str, name: str) -> bool:
    kinds, actions = pattern.split(".")
    kind, _, action = name.partition(".")
    return kinds in ("*", kind) and actions in ("*", action)

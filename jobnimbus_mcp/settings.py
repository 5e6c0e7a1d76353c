"""Settings: one table of variables, read once from a mapping (the environment over a `.env` file) and checked whole."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlsplit
from zoneinfo import ZoneInfo

from dotenv import dotenv_values
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.reads import Operation
from jobnimbus_mcp.errors import SettingsError

__all__ = ["SECRET_LENGTH_MIN", "VARIABLES", "Settings", "Variable"]

SECRET_LENGTH_MIN = 16
"""Shorter secrets can be guessed over the network; random ones of this length cannot."""

TTL_MAX_S = 86_400
"""A lifetime only bounds what no event tells of: beyond a day it would no longer bound anything."""

_JOBNIMBUS_HOST = "app.jobnimbus.com"
_JOBNIMBUS_UPLOADS = "https://api.jobnimbus.com"
"""Source: JobNimbus API documentation, file uploads (`/files/v1/uploads/...` on this host)."""
_JOBNIMBUS_FILES = "files.jobnimbus.com"
"""Source: seen by users of the API; where a download is redirected to, by a signed URL that needs no key."""

_INSTANCE = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_API_KEY = re.compile(r"[A-Za-z0-9_-]{16,256}")
_DIGEST = re.compile(r"[0-9a-f]{32}")
_HOST = re.compile(r"(?:\[[0-9a-f:.]{2,45}\]|[a-z0-9](?:[a-z0-9._-]{0,252}[a-z0-9])?)(?::\d{1,5})?")
_ENTITIES = tuple(entity.value for entity in Entity)
_OPERATIONS = tuple(operation.value for operation in Operation)
_LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")


# What a value must look like. The messages never repeat the value: it may be a secret in the wrong place.


def _listed(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(part for item in value.split(",") if (part := item.strip()))
    return value


def _instances(names: tuple[str, ...]) -> tuple[str, ...]:
    if not names:
        raise ValueError("name at least one account")
    if not all(_INSTANCE.fullmatch(name) for name in names):
        raise ValueError(
            "names are 1 to 32 lower-case letters, digits, - or _, the first a letter or digit, separated by commas"
        )
    if len({_suffix(name) for name in names}) < len(names):
        raise ValueError("every name must be different, - and _ counting as the same")
    return names


def _secret(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if len(text) < SECRET_LENGTH_MIN:
        raise ValueError(f"must have at least {SECRET_LENGTH_MIN} characters")
    if not all("!" <= character <= "~" for character in text):
        raise ValueError("must be printable ASCII without blanks, or no header could carry it")
    return value


def _api_key(value: SecretStr) -> SecretStr:
    if not _API_KEY.fullmatch(value.get_secret_value()):
        raise ValueError("a JobNimbus key is 16 to 256 letters, digits, - or _")
    return value


def _http_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError("must be an http:// or https:// URL without user, query or fragment")
    return value.rstrip("/")


def _redis_url(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if text.startswith(("redis+cluster://", "redis+sentinel://")):
        raise ValueError(
            "Redis Cluster and Sentinel are not supported: give one server as redis://, rediss:// or unix://"
        )
    try:
        parts = urlsplit(text)
        usable = (parts.scheme in ("redis", "rediss") and bool(parts.hostname) and (parts.port or 1) > 0) or (
            parts.scheme == "unix" and len(parts.path) > 1
        )
    except ValueError:
        usable = False
    if not usable or (parts.scheme != "unix" and not re.fullmatch(r"/?\d*", parts.path)):
        raise ValueError("must be redis://, rediss:// (both may end in /<database number>) or unix://<path>")
    return value


def _hosts(values: tuple[str, ...]) -> tuple[str, ...]:
    lowered = tuple(value.lower() for value in values)
    if not all(_HOST.fullmatch(value) for value in lowered):
        raise ValueError("must be host names (host or host:port), separated by commas, without scheme or path")
    return lowered


def _groups(values: tuple[str, ...]) -> tuple[str, ...]:
    for group in values:
        digests = group.split("+")
        if len(digests) < 2 or not all(_DIGEST.fullmatch(digest) for digest in digests):
            raise ValueError(
                "write groups of digests as `jobnimbus-mcp doctor` prints them, joined by +, groups separated by commas"
            )
    return values


def _log_level(value: Any) -> Any:
    lowered = value.lower() if isinstance(value, str) else value
    return "warning" if lowered == "warn" else lowered


Secret = Annotated[SecretStr, AfterValidator(_secret)]
ApiKey = Annotated[SecretStr, AfterValidator(_api_key)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
Hosts = Annotated[tuple[str, ...], BeforeValidator(_listed), AfterValidator(_hosts)]
Lowered = BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value)


def _variable(name: str, default: Any, unit: str, reason: str, *, shown: str = "", **bounds: Any) -> Any:
    """One row of the table. `shown`: how the default reads in the documentation, where it is worked out."""
    return Field(default, alias=name, description=reason, json_schema_extra={"unit": unit, "shown": shown}, **bounds)


class Settings(BaseSettings):
    """Every setting, checked. Built by `from_env`; durations and sizes are in the unit of their variable's row."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)

    # the store
    redis_url: Annotated[SecretStr, AfterValidator(_redis_url)] | None = _variable(
        "REDIS_URL",
        None,
        "URL",
        "redis://, rediss:// or unix://; wins over the parts below. Neither set: the embedded store, in this process",
    )
    redis_host: Annotated[str, AfterValidator(lambda host: _hosts((host,))[0])] | None = _variable(
        "REDIS_HOST", None, "host name", "the parts of a Redis URL, used when REDIS_URL is not set"
    )
    redis_port: int = _variable("REDIS_PORT", 6379, "port", "goes with REDIS_HOST", ge=1, le=65535)
    redis_password: SecretStr | None = _variable("REDIS_PASSWORD", None, "secret", "goes with REDIS_HOST")
    redis_db: int = _variable("REDIS_DB", 0, "number", "database number; goes with REDIS_HOST", ge=0, le=10_000)
    redis_tls_enabled: bool = _variable(
        "REDIS_TLS_ENABLED", False, "true/false", "speak TLS to REDIS_HOST; needed where the network is not your own"
    )
    redis_max_retries: int = _variable(
        "REDIS_MAX_RETRIES",
        3,
        "times",
        "tries of connecting in the background; never on a call's path",
        ge=0,
        le=1000,
    )
    redis_connection_timeout_ms: int = _variable(
        "REDIS_CONNECTION_TIMEOUT",
        10_000,
        "ms",
        "bound on one connection attempt in the background; never on a call's path",
        ge=1,
        le=600_000,
    )
    redis_command_timeout_ms: int = _variable(
        "REDIS_COMMAND_TIMEOUT_MS",
        100,
        "ms",
        "bound on every command on a call's path, not retried there: the most that a frozen Redis can cost a call",
        ge=1,
        le=60_000,
    )

    # the cache
    cache_enabled: bool = _variable(
        "CACHE_ENABLED", True, "true/false", "false: every read asks JobNimbus; for comparison only"
    )
    cache_consistency: Annotated[Literal["strict"], Lowered] = _variable(
        "CACHE_CONSISTENCY",
        "strict",
        "word",
        "strict: every hit is validated, so no read that starts after a webhook was answered returns older data",
    )
    cache_compression_enabled: bool = _variable(
        "CACHE_COMPRESSION_ENABLED", True, "true/false", "values over 1 KB are stored compressed; costs 0.1 ms a fill"
    )
    cache_max_item_size_kb: int = _variable(
        "CACHE_MAX_ITEM_SIZE_KB",
        512,
        "KB",
        "larger values (as stored) are answered and not kept, so that a few do not push out the many",
        ge=1,
        le=102_400,
    )
    cache_circuit_failure_threshold: int = _variable(
        "CACHE_CIRCUIT_FAILURE_THRESHOLD",
        5,
        "failures",
        "Redis failures after which calls no longer wait for it",
        ge=1,
        le=10_000,
    )
    cache_circuit_reset_timeout_ms: int = _variable(
        "CACHE_CIRCUIT_RESET_TIMEOUT",
        60_000,
        "ms",
        "how long Redis is left alone before it is tried again, in the background",
        ge=1,
        le=3_600_000,
    )
    l1_max_mb: int = _variable(
        "L1_MAX_MB", 64, "MB", "memory of one process for what it has just read", ge=0, le=65_536
    )
    answer_max_bytes: int = _variable(
        "ANSWER_MAX_BYTES",
        24_576,
        "bytes",
        "budget of one tool answer, about 8,000 tokens; a longer list continues at a cursor",
        ge=1_000,
        le=10_000_000,
    )
    data_dir: Path = _variable(
        "DATA_DIR",
        Path(),
        "path",
        "what this machine keeps on disk; may be shared by its processes",
        shown="the platform's state directory, `~/.local/state/jobnimbus-mcp` on Linux",
    )

    # JobNimbus
    jobnimbus_api_base_url: HttpUrl = _variable(
        "JOBNIMBUS_API_BASE_URL",
        f"https://{_JOBNIMBUS_HOST}/api1",
        "URL",
        "root of the API; the simulator's goes here too",
    )
    jobnimbus_upload_base_url: HttpUrl = _variable(
        "JOBNIMBUS_UPLOAD_BASE_URL",
        _JOBNIMBUS_UPLOADS,
        "URL",
        "where files are uploaded to; a key never goes to a host that was not meant",
        shown="JobNimbus's own with JobNimbus's API, else the API's host",
    )
    jobnimbus_files_hosts: Hosts = _variable(
        "JOBNIMBUS_FILES_HOSTS",
        (_JOBNIMBUS_FILES,),
        "host names",
        "hosts that a download may be redirected to, comma-separated",
        shown="JobNimbus's own with JobNimbus's API, else the API's host",
    )
    instances: Annotated[tuple[str, ...], BeforeValidator(_listed), AfterValidator(_instances)] = _variable(
        "JOBNIMBUS_INSTANCES", ("default",), "names", "the accounts served, comma-separated, e.g. stamford,guilford"
    )
    jobnimbus_api_key: ApiKey | None = _variable(
        "JOBNIMBUS_API_KEY",
        None,
        "secret",
        "the server's own key, when one account is served; without it every request must bring one",
    )
    jobnimbus_max_requests_per_s: float = _variable(
        "JOBNIMBUS_MAX_REQUESTS_PER_S",
        10.0,
        "per second",
        "request budget of one account, shared by all replicas; JobNimbus publishes no limit; 0 = none",
        ge=0,
        le=10_000,
    )
    jobnimbus_max_concurrent: int = _variable(
        "JOBNIMBUS_MAX_CONCURRENT",
        8,
        "requests",
        "requests in flight to one account, per process; 0 = no limit",
        ge=0,
        le=1_000,
    )
    jobnimbus_shared_partitions: Annotated[tuple[str, ...], BeforeValidator(_listed), AfterValidator(_groups)] = (
        _variable(
            "JOBNIMBUS_SHARED_PARTITIONS",
            (),
            "digests",
            "keys known to share an access profile, so that they may share what is cached: their digests as doctor "
            "prints them joined by +, groups comma-separated",
        )
    )
    partition_secret: Secret | None = _variable(
        "PARTITION_SECRET",
        None,
        "secret",
        "keys the digest that parts one credential's data from another's; the same on all replicas",
    )
    credential_recheck_s: int = _variable(
        "CREDENTIAL_RECHECK_S",
        300,
        "s",
        "a credential that JobNimbus has not accepted for so long is checked again before it is served from the cache",
        ge=1,
        le=86_400,
    )
    account_timezone: ZoneInfo = _variable(
        "ACCOUNT_TIMEZONE", ZoneInfo("UTC"), "zone", "of dates without one, e.g. America/New_York"
    )

    # who may call
    mcp_auth_tokens: Annotated[tuple[Secret, ...], BeforeValidator(_listed)] = _variable(
        "MCP_AUTH_TOKENS",
        (),
        "secrets",
        "bearer tokens of callers of /mcp and /mcp/tools/*, comma-separated; needed once the server holds a key",
    )
    admin_token: Secret | None = _variable(
        "ADMIN_TOKEN", None, "secret", "bearer token of the admin routes; without it they are off"
    )
    webhook_secret: Secret | None = _variable(
        "WEBHOOK_SECRET", None, "secret", "opens /webhooks/jobnimbus for every account; without any they are off"
    )
    webhook_signing_secret: Secret | None = _variable(
        "WEBHOOK_SIGNING_SECRET", None, "secret", "for senders that sign (HMAC-SHA256 or Standard Webhooks)"
    )
    allowed_hosts: Hosts = _variable(
        "ALLOWED_HOSTS",
        _LOOPBACK_HOSTS,
        "host names",
        "Host headers that are answered, comma-separated; guards against DNS rebinding",
        shown="loopback names, and `RENDER_EXTERNAL_HOSTNAME` when set",
    )

    # logs
    log_level: Annotated[Literal["debug", "info", "warning", "error", "critical"], BeforeValidator(_log_level)] = (
        _variable("LOG_LEVEL", "info", "word", "debug, info, warning, error or critical; logs go to stderr")
    )
    log_format: Annotated[Literal["auto", "json", "console"], Lowered] = _variable(
        "LOG_FORMAT", "auto", "word", "json lines, console, or auto: console on a terminal, else json"
    )
    access_log: bool = _variable("ACCESS_LOG", False, "true/false", "one line per HTTP request, without query strings")

    # the families of variables, by account or by kind of record
    api_keys: Mapping[str, SecretStr] = Field(default_factory=dict)
    """The server's own key by instance; instances without one are missing."""
    webhook_secrets: Mapping[str, SecretStr] = Field(default_factory=dict)
    """Secrets that open the webhooks of one instance alone."""
    ttl_overrides: Mapping[tuple[str, str | None], int] = Field(default_factory=dict)
    """(entity, operation or None for all of them) -> seconds."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what `from_env` hands in: the process's environment is one mapping among others, as in tests."""
        return (init_settings,)

    @classmethod
    def from_env(cls, env: Mapping[str, str], *, env_file: Path | str | None = None) -> Settings:
        """The settings in `env`, over those in `env_file` where that exists. Blank values count as not set.

        Raises:
            SettingsError: one message that names every mistake and repeats no value.
        """
        given = {**_file_values(env_file), **env}
        given = {name: stripped for name, value in given.items() if (stripped := value.strip())}
        fixed = {name: given[name] for name in _FIELDS if name in given}
        for name, value in _worked_out(given).items():
            fixed.setdefault(name, value)
        families = _Families(given)
        mistakes = families.mistakes
        made: Settings | None = None
        try:
            made = cls.model_validate(
                {
                    **fixed,
                    "api_keys": families.api_keys,
                    "webhook_secrets": families.webhook_secrets,
                    "ttl_overrides": families.ttl_overrides,
                }
            )
        except ValidationError as invalid:
            mistakes = [*_sentences(invalid), *mistakes]
        if made is None or mistakes:
            raise SettingsError("; ".join(dict.fromkeys(mistakes)))
        return made

    @property
    def store_url(self) -> SecretStr | None:
        """The Redis to use, from REDIS_URL or put together from the parts; None: the embedded store."""
        if self.redis_url is not None:
            return self.redis_url
        if self.redis_host is None:
            return None
        scheme = "rediss" if self.redis_tls_enabled else "redis"
        password = f":{quote(self.redis_password.get_secret_value(), safe='')}@" if self.redis_password else ""
        return SecretStr(f"{scheme}://{password}{self.redis_host}:{self.redis_port}/{self.redis_db}")

    @property
    def store_address(self) -> str:
        """Where the store is, without its credentials; fit for a log line."""
        if self.store_url is None:
            return "embedded"
        parts = urlsplit(self.store_url.get_secret_value())
        host = parts.netloc.rpartition("@")[2]
        return f"{parts.scheme}://{host}{parts.path}"

    @property
    def holds_api_key(self) -> bool:
        """Whether a request without a key of its own would be answered with ours."""
        return bool(self.api_keys)

    @property
    def webhooks_enabled(self) -> bool:
        return bool(self.webhook_secret or self.webhook_signing_secret or self.webhook_secrets)

    def secret_values(self) -> frozenset[str]:
        """Every secret there is, for the log's redaction to look out for."""
        single = (
            self.redis_password,
            self.partition_secret,
            self.admin_token,
            self.webhook_secret,
            self.webhook_signing_secret,
            *self.mcp_auth_tokens,
            *self.api_keys.values(),
            *self.webhook_secrets.values(),
        )
        found = {secret.get_secret_value() for secret in single if secret is not None}
        if self.redis_url is not None and (password := urlsplit(self.redis_url.get_secret_value()).password):
            found.add(password)
        return frozenset(found)


class _Families:
    """The variables whose names hold an instance or a kind of record."""

    def __init__(self, given: Mapping[str, str]) -> None:
        self.mistakes: list[str] = []
        names: tuple[str, ...] = _listed(given.get("JOBNIMBUS_INSTANCES", "default"))
        self._instances = {_suffix(name): name for name in names}
        self.api_keys = self._per_instance(given, "JOBNIMBUS_API_KEY_", _api_key)
        self.webhook_secrets = self._per_instance(given, "WEBHOOK_SECRET_", _secret)
        self.ttl_overrides = self._lifetimes(given)
        if plain := given.get("JOBNIMBUS_API_KEY"):
            if len(names) == 1:
                # a malformed one is reported by the table's own row
                self.api_keys.setdefault(names[0], SecretStr(plain))
            else:
                self.mistakes.append(
                    "JOBNIMBUS_API_KEY: several accounts are served, so give each its own as "
                    + " and ".join(f"JOBNIMBUS_API_KEY_{_suffix(name)}" for name in names)
                )

    def _per_instance(self, given: Mapping[str, str], prefix: str, check: Any) -> dict[str, SecretStr]:
        found: dict[str, SecretStr] = {}
        for name, value in given.items():
            if not name.startswith(prefix):
                continue
            instance = self._instances.get(name.removeprefix(prefix))
            if instance is None:
                self.mistakes.append(f"{name}: JOBNIMBUS_INSTANCES names no such account")
                continue
            try:
                found[instance] = check(SecretStr(value))
            except ValueError as wrong:
                self.mistakes.append(f"{name}: {wrong}")
        return found

    def _lifetimes(self, given: Mapping[str, str]) -> dict[tuple[str, str | None], int]:
        found: dict[tuple[str, str | None], int] = {}
        for name, value in given.items():
            if not name.startswith("CACHE_TTL_"):
                continue
            entity, underscore, operation = name.removeprefix("CACHE_TTL_").lower().partition("_")
            if entity not in _ENTITIES or (underscore and operation not in _OPERATIONS):
                kinds = ", ".join(_ENTITIES).upper()
                self.mistakes.append(
                    f"{name}: write CACHE_TTL_<ENTITY> or CACHE_TTL_<ENTITY>_<OPERATION>, the entity one of {kinds}, "
                    f"the operation one of {', '.join(_OPERATIONS).upper()}"
                )
            elif not re.fullmatch(r"\d{1,6}", value) or not 1 <= int(value) <= TTL_MAX_S:
                self.mistakes.append(f"{name}: must be a whole number of seconds from 1 to {TTL_MAX_S}")
            else:
                found[entity, operation or None] = int(value)
        return found


def _suffix(instance: str) -> str:
    """How an account's name ends the name of a variable."""
    return instance.upper().replace("-", "_")


def _file_values(path: Path | str | None) -> dict[str, str]:
    if path is None:
        return {}
    try:
        values = dotenv_values(path, interpolate=False)
    except (OSError, UnicodeDecodeError) as unreadable:
        raise SettingsError(f"{path}: cannot be read ({type(unreadable).__name__})") from unreadable
    return {name: value for name, value in values.items() if value is not None}


def _worked_out(given: Mapping[str, str]) -> dict[str, Any]:
    """The defaults that depend on other variables."""
    made: dict[str, Any] = {"DATA_DIR": _state_directory(given)}
    if hostname := given.get("RENDER_EXTERNAL_HOSTNAME"):
        made["ALLOWED_HOSTS"] = (*_LOOPBACK_HOSTS, hostname)
    try:
        api = urlsplit(_http_url(given.get("JOBNIMBUS_API_BASE_URL", f"https://{_JOBNIMBUS_HOST}")))
    except ValueError:
        return made  # reported by the table's own row
    if api.hostname != _JOBNIMBUS_HOST:
        made["JOBNIMBUS_UPLOAD_BASE_URL"] = f"{api.scheme}://{api.netloc}"
        made["JOBNIMBUS_FILES_HOSTS"] = api.netloc
    return made


def _state_directory(given: Mapping[str, str]) -> Path:
    home = Path(given["HOME"]) if "HOME" in given else Path.home()
    if sys.platform == "darwin":
        return home / "Library" / "Application Support" / "jobnimbus-mcp"
    if sys.platform == "win32":
        return Path(given.get("LOCALAPPDATA", str(home / "AppData" / "Local"))) / "jobnimbus-mcp"
    state = given.get("XDG_STATE_HOME", "")
    # the XDG specification says to ignore a relative path
    return (Path(state) if PurePosixPath(state).is_absolute() else home / ".local" / "state") / "jobnimbus-mcp"


def _sentences(invalid: ValidationError) -> list[str]:
    """pydantic's findings in words that name the variable and never its value."""
    made = []
    for error in invalid.errors(include_input=False, include_url=False):
        context = error.get("ctx", {})
        match error["type"]:
            case "int_parsing" | "int_from_float" | "int_parsing_size":
                said = "must be a whole number"
            case "float_parsing" | "finite_number":
                said = "must be a number"
            case "bool_parsing":
                said = "must be true or false"
            case "greater_than_equal":
                said = f"must be at least {context['ge']:g}"
            case "less_than_equal":
                said = f"must be at most {context['le']:g}"
            case "literal_error":
                said = f"must be {context['expected']}".replace("'", "")
            case "zoneinfo_str":
                said = "must be a zone of the IANA database, e.g. America/New_York"
            case "value_error":
                said = str(context["error"])
            case _:
                said = "is not understood"
        made.append(f"{error['loc'][0]}: {said}")
    return made


@dataclass(frozen=True, slots=True)
class Variable:
    """One row of the settings table as documentation shows it. `default` is empty where nothing is set."""

    name: str
    unit: str
    default: str
    reason: str
    secret: bool


def _shown(default: Any) -> str:
    match default:
        case None | ():
            return ""
        case bool():
            return "true" if default else "false"
        case float():
            return f"{default:g}"
        case tuple():
            return ",".join(default)
        case _:
            return str(default)


def _rows() -> Sequence[Variable]:
    rows = []
    for field in Settings.model_fields.values():
        if field.alias is None or not isinstance(field.json_schema_extra, dict):
            continue
        unit = str(field.json_schema_extra["unit"])
        shown = str(field.json_schema_extra["shown"]) or _shown(field.default)
        secret = unit.startswith("secret") or field.alias == "REDIS_URL"
        rows.append(Variable(field.alias, unit, shown, str(field.description), secret))
    families = {
        "JOBNIMBUS_API_KEY": (
            Variable("JOBNIMBUS_API_KEY_<INSTANCE>", "secret", "", "that account's key, e.g. ..._STAMFORD", True),
        ),
        "WEBHOOK_SECRET": (
            Variable("WEBHOOK_SECRET_<INSTANCE>", "secret", "", "opens that account's webhooks alone", True),
        ),
        "CACHE_CONSISTENCY": (
            Variable(
                "CACHE_TTL_<ENTITY>",
                "s",
                "",
                "lifetime of all reads of that kind, e.g. CACHE_TTL_JOBS; bounds what no webhook tells of",
                False,
            ),
            Variable(
                "CACHE_TTL_<ENTITY>_<OPERATION>",
                "s",
                "",
                "lifetime of LIST, SEARCH or DETAIL reads of that kind; wins over the one above",
                False,
            ),
        ),
    }
    return [row for first in rows for row in (first, *families.get(first.name, ()))]


_FIELDS = frozenset(field.alias for field in Settings.model_fields.values() if field.alias is not None)

VARIABLES: Sequence[Variable] = tuple(_rows())
"""The table in the order of the documentation; `.env.example` and the README are held equal to it by tests."""

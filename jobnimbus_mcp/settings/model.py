"""Settings: one table of variables, read once from a mapping (the environment over a `.env` file) and checked whole."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal
from urllib.parse import parse_qs, quote, unquote, urlsplit
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

from jobnimbus_mcp.cache.mode import Mode
from jobnimbus_mcp.consumers.relay_targets import RelayTarget, parse_targets
from jobnimbus_mcp.errors import SettingsError
from jobnimbus_mcp.gateway.access import TOOLSETS
from jobnimbus_mcp.settings.checks import (
    ApiKey,
    Hosts,
    HttpUrl,
    Lowered,
    Secret,
    check_groups,
    check_hosts,
    check_http_url,
    check_instances,
    check_log_level,
    check_redis_url,
    check_toolsets,
    listed,
)
from jobnimbus_mcp.settings.clients import (
    check_issuer,
    check_jwks_url,
    check_scope,
    oauth_mistakes,
    parse_clients,
)
from jobnimbus_mcp.settings.families import TTL_MAX_S, Families
from jobnimbus_mcp.web.clients import Client

__all__ = ["Settings"]

_JOBNIMBUS_HOST = "app.jobnimbus.com"
_JOBNIMBUS_UPLOADS = "https://api.jobnimbus.com"
"""Source: JobNimbus API documentation, file uploads (`/files/v1/uploads/...` on this host)."""
_JOBNIMBUS_FILES = "files.jobnimbus.com"
"""Source: seen by users of the API; where a download is redirected to, by a signed URL that needs no key."""

_LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")


def _variable(name: str, default: Any, unit: str, reason: str, *, shown: str = "", **bounds: Any) -> Any:
    """One row of the table. `shown`: how the default reads in the documentation, where it is worked out."""
    return Field(default, alias=name, description=reason, json_schema_extra={"unit": unit, "shown": shown}, **bounds)


class Settings(BaseSettings):
    """Every setting, checked. Built by `from_env`; durations and sizes are in the unit of their variable's row."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)

    # the store
    redis_url: Annotated[SecretStr, AfterValidator(check_redis_url)] | None = _variable(
        "REDIS_URL",
        None,
        "URL",
        "redis://, rediss:// or unix://; a cluster as redis+cluster://host:port,host:port, behind Sentinels as "
        "redis+sentinel://host:port,host:port/master-name; wins over the parts below. Neither set: the embedded store, "
        "in this process",
    )
    redis_host: Annotated[str, AfterValidator(lambda host: check_hosts((host,))[0])] | None = _variable(
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
        "further tries of connecting in the background; never on a call's path",
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
    cache_consistency: Annotated[Mode, Lowered] = _variable(
        "CACHE_CONSISTENCY",
        Mode.BARRIER,
        "word",
        "strict: every hit is validated by Redis; barrier: as fresh, but webhooks wait until every replica knows, so "
        "that a hit asks nobody; bounded: up to 2 s older, nobody waits; any: what has changed may be shown once more, "
        "labelled",
    )
    cache_adaptive_ttl: bool = _variable(
        "CACHE_ADAPTIVE_TTL",
        True,
        "true/false",
        "lifetimes follow how often a kind of record changed in the last hour; those set by CACHE_TTL_... stay as set",
    )
    cache_adaptive_busy_per_h: int = _variable(
        "CACHE_ADAPTIVE_BUSY_PER_H",
        10,
        "per hour",
        "above so many changes of a kind, lifetimes are at most CACHE_ADAPTIVE_MIN_S",
        ge=0,
        le=1_000_000,
    )
    cache_adaptive_calm_per_h: int = _variable(
        "CACHE_ADAPTIVE_CALM_PER_H",
        2,
        "per hour",
        "below so many, lifetimes are at least CACHE_ADAPTIVE_MAX_S, where webhooks are known to arrive",
        ge=0,
        le=1_000_000,
    )
    cache_adaptive_min_s: int = _variable(
        "CACHE_ADAPTIVE_MIN_S", 600, "s", "lifetime of what changes often", ge=1, le=TTL_MAX_S
    )
    cache_adaptive_max_s: int = _variable(
        "CACHE_ADAPTIVE_MAX_S", 3600, "s", "lifetime of what hardly changes", ge=1, le=TTL_MAX_S
    )
    cache_stale_while_revalidate_s: int = _variable(
        "CACHE_STALE_WHILE_REVALIDATE_S",
        60,
        "s",
        "so long past its lifetime, and no longer than a tenth of that, an answer is given at once, labelled stale, "
        "and fetched anew behind it; never when something changed; 0 = off",
        ge=0,
        le=3_600,
    )
    cache_stale_if_error_s: int = _variable(
        "CACHE_STALE_IF_ERROR_S",
        1_800,
        "s",
        "so long past its lifetime an answer is given, labelled stale, when JobNimbus fails or is slow; never when "
        "something changed; 0 = off",
        ge=0,
        le=TTL_MAX_S,
    )
    cache_soft_timeout_ms: int = _variable(
        "CACHE_SOFT_TIMEOUT_MS",
        2_000,
        "ms",
        "how long JobNimbus is waited for where a stale answer could be given; the fetch goes on behind it",
        ge=1,
        le=60_000,
    )
    index_settle_s: int = _variable(
        "INDEX_SETTLE_S",
        6,
        "s",
        "JobNimbus's lists lag behind its records by so much: lists fetched sooner after a change are not kept longer, "
        "and then all are renewed once more",
        ge=0,
        le=60,
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
        "the journal of invalidations that could not be delivered while Redis was away; keep it on a disk that "
        "survives a restart",
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
        "where files are uploaded to",
        shown="JobNimbus's own with JobNimbus's API, else the API's host",
    )
    jobnimbus_files_hosts: Hosts = _variable(
        "JOBNIMBUS_FILES_HOSTS",
        (_JOBNIMBUS_FILES,),
        "host names",
        "hosts that an upload or a download may be sent on to, comma-separated; the key never goes with it",
        shown="JobNimbus's own with JobNimbus's API, else the API's host",
    )
    instances: Annotated[tuple[str, ...], BeforeValidator(listed), AfterValidator(check_instances)] = _variable(
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
    jobnimbus_shared_partitions: Annotated[tuple[str, ...], BeforeValidator(listed), AfterValidator(check_groups)] = (
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
    mcp_auth_tokens: Annotated[tuple[Secret, ...], BeforeValidator(listed)] = _variable(
        "MCP_AUTH_TOKENS",
        (),
        "secrets",
        "bearer tokens of callers of /mcp and /mcp/tools/*, comma-separated; needed once the server holds a key",
    )
    mcp_clients: SecretStr | None = _variable(
        "MCP_CLIENTS",
        None,
        "secret JSON",
        "callers with a token each: a JSON array of objects with name and token and, as wanted, instances, toolsets, "
        "tools, read_only, requests_per_minute",
    )
    mcp_read_only: bool = _variable(
        "MCP_READ_ONLY", False, "true/false", "nobody changes JobNimbus through this server; tools that write are gone"
    )
    mcp_toolsets: Annotated[tuple[str, ...], BeforeValidator(listed), AfterValidator(check_toolsets)] = _variable(
        "MCP_TOOLSETS",
        ("default",),
        "names",
        "tools that tools/list shows, comma-separated: default, crm, work, sales, files, account, bulk, all; the "
        "others are found by find_tools and called by use_tool",
    )
    caller_max_requests_per_minute: int = _variable(
        "CALLER_MAX_REQUESTS_PER_MINUTE",
        0,
        "per minute",
        "calls of one caller of /mcp and /mcp/tools/*, over all replicas; beyond it 429; 0 = no limit",
        ge=0,
        le=1_000_000,
    )
    oauth_issuer_url: Annotated[str, AfterValidator(check_issuer)] | None = _variable(
        "OAUTH_ISSUER_URL",
        None,
        "URL",
        "authorization server whose access tokens (JWT) open /mcp and /mcp/tools/*; goes with OAUTH_RESOURCE_URL",
    )
    oauth_resource_url: HttpUrl | None = _variable(
        "OAUTH_RESOURCE_URL",
        None,
        "URL",
        "this server's own /mcp as the world sees it; tokens must be meant for it (aud)",
    )
    oauth_jwks_url: Annotated[str, AfterValidator(check_jwks_url)] | None = _variable(
        "OAUTH_JWKS_URL", None, "URL", "the issuer's public keys", shown="found through the issuer's metadata"
    )
    oauth_scope_read: Annotated[str, AfterValidator(check_scope)] = _variable(
        "OAUTH_SCOPE_READ", "jobnimbus:read", "word", "scope that every token needs"
    )
    oauth_scope_write: Annotated[str, AfterValidator(check_scope)] = _variable(
        "OAUTH_SCOPE_WRITE", "jobnimbus:write", "word", "scope without which a token may only read"
    )
    oauth_instances_claim: str = _variable(
        "OAUTH_INSTANCES_CLAIM",
        "jobnimbus_instances",
        "word",
        "claim that lists the accounts a token is for; a token without it is for all of them",
    )
    oauth_toolsets_claim: str = _variable(
        "OAUTH_TOOLSETS_CLAIM",
        "jobnimbus_toolsets",
        "word",
        "claim that lists the toolsets a token may use; a token without it may use all of them",
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

    # events
    events_transport: Annotated[Literal["redis", "postgres", "kafka"], Lowered] = _variable(
        "EVENTS_TRANSPORT",
        "redis",
        "word",
        "where changes wait for those who act on them: redis, the stream beside the cache; postgres; kafka. Without a "
        "Redis, redis means this process's memory",
    )
    events_settle_s: int = _variable(
        "EVENTS_SETTLE_S",
        20,
        "s",
        "consumers that read lists act on a new record only after so long, since JobNimbus shows it there late",
        ge=0,
        le=3_600,
    )
    events_claim_idle_s: int = _variable(
        "EVENTS_CLAIM_IDLE_S",
        30,
        "s",
        "after so long without a sign of life what a worker had in hand is another's; no effect takes longer than 20",
        ge=30,
        le=60,
    )
    events_retention_days: int = _variable(
        "EVENTS_RETENTION_DAYS",
        7,
        "days",
        "how long events that are done, or were given up, can be looked at",
        shown="7; 30 with EVENTS_TRANSPORT=postgres",
        ge=1,
        le=3_650,
    )
    events_clean_hour: int = _variable(
        "EVENTS_CLEAN_HOUR", 3, "hour", "of the day in ACCOUNT_TIMEZONE when older ones are removed", ge=0, le=23
    )
    catch_up_interval_s: int = _variable(
        "CATCH_UP_INTERVAL_S",
        60,
        "s",
        "how often JobNimbus is asked, with the server's own key, for changes that no webhook told of; four times as "
        "often while webhooks seem to be missing; 0 = off",
        ge=0,
        le=86_400,
    )
    sweep_interval_s: int = _variable(
        "SWEEP_INTERVAL_S",
        86_400,
        "s",
        "how often all ids are compared with those of the last time, to find deletions nobody told of; 0 = off",
        ge=0,
        le=2_592_000,
    )
    cache_warm_every_s: int = _variable(
        "CACHE_WARM_EVERY_S",
        3_600,
        "s",
        "how often what is asked most is read ahead, with the server's own key and within the request budget; 0 = off",
        ge=0,
        le=86_400,
    )
    relay_targets: SecretStr | None = _variable(
        "RELAY_TARGETS",
        None,
        "secret URLs",
        "where events are delivered to by signed POSTs, e.g. n8n or Zapier: https URLs, comma-separated, or a JSON "
        "array of objects with url and, as wanted, name, events, instances, sources, secret",
    )
    relay_signing_secret: Secret | None = _variable(
        "RELAY_SIGNING_SECRET",
        None,
        "secret",
        "signs what is delivered, as Standard Webhooks; none: WEBHOOK_SIGNING_SECRET is used",
    )
    relay_allow_private: bool = _variable(
        "RELAY_ALLOW_PRIVATE",
        False,
        "true/false",
        "targets may be in your own network, and there also plain http://; otherwise a target could be made to reach "
        "into it",
    )
    database_url: SecretStr | None = _variable(
        "DATABASE_URL", None, "URL", "postgresql://...; goes with EVENTS_TRANSPORT=postgres"
    )
    kafka_bootstrap_servers: Hosts = _variable(
        "KAFKA_BOOTSTRAP_SERVERS", (), "host:port", "comma-separated; goes with EVENTS_TRANSPORT=kafka"
    )
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = _variable(
        "KAFKA_SECURITY_PROTOCOL",
        "PLAINTEXT",
        "word",
        "PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL",
        shown="PLAINTEXT; SASL_SSL with KAFKA_SASL_USERNAME",
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = _variable(
        "KAFKA_SASL_MECHANISM", "PLAIN", "word", "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"
    )
    kafka_sasl_username: str | None = _variable("KAFKA_SASL_USERNAME", None, "name", "goes with KAFKA_SASL_PASSWORD")
    kafka_sasl_password: SecretStr | None = _variable(
        "KAFKA_SASL_PASSWORD", None, "secret", "goes with KAFKA_SASL_USERNAME"
    )

    # logs
    log_level: Annotated[Literal["debug", "info", "warning", "error", "critical"], BeforeValidator(check_log_level)] = (
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
    consistency_overrides: Mapping[tuple[str, str | None], Mode] = Field(default_factory=dict)
    """(entity, operation or None for all of them) -> mode."""
    redis_urls: Mapping[str, SecretStr] = Field(default_factory=dict)
    """The Redis of an account's own by instance; the others share the one of all."""

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
        families = Families(given)
        mistakes = families.mistakes
        made: Settings | None = None
        try:
            made = cls.model_validate(
                {
                    **fixed,
                    "api_keys": families.api_keys,
                    "webhook_secrets": families.webhook_secrets,
                    "ttl_overrides": families.ttl_overrides,
                    "consistency_overrides": families.consistency_overrides,
                    "redis_urls": families.redis_urls,
                }
            )
            mistakes = [*mistakes, *_against_each_other(made)]
        except ValidationError as invalid:
            mistakes = [*_sentences(invalid), *mistakes]
        if made is None or mistakes:
            raise SettingsError("; ".join(dict.fromkeys(mistakes)))
        return made

    @property
    def store_url(self) -> SecretStr | None:
        """The Redis of all accounts without one of their own, from REDIS_URL or put together from the parts; None: the
        embedded store."""
        if self.redis_url is not None:
            return self.redis_url
        if self.redis_host is None:
            return None
        scheme = "rediss" if self.redis_tls_enabled else "redis"
        password = f":{quote(self.redis_password.get_secret_value(), safe='')}@" if self.redis_password else ""
        return SecretStr(f"{scheme}://{password}{self.redis_host}:{self.redis_port}/{self.redis_db}")

    @property
    def store_address(self) -> str:
        """Where the store of all accounts is, without its credentials; fit for a log line."""
        return _address(self.store_url)

    def store_url_of(self, instance: str) -> SecretStr | None:
        """The Redis of one account: its own, else that of all; None: the embedded store."""
        return self.redis_urls.get(instance, self.store_url)

    def store_address_of(self, instance: str) -> str:
        """Where one account's store is, without its credentials."""
        return _address(self.store_url_of(instance))

    @property
    def holds_api_key(self) -> bool:
        """Whether a request without a key of its own would be answered with ours."""
        return bool(self.api_keys)

    @property
    def has_doors(self) -> bool:
        """Whether callers of the tools need a token of any kind."""
        return bool(self.mcp_auth_tokens or self.mcp_clients or self.oauth_issuer_url)

    @property
    def webhooks_enabled(self) -> bool:
        return bool(self.webhook_secret or self.webhook_signing_secret or self.webhook_secrets)

    def takes_webhooks(self, instance: str) -> bool:
        """Whether anything opens this account's webhooks."""
        return bool(self.webhook_secret or self.webhook_signing_secret or instance in self.webhook_secrets)

    def catches_up(self, instance: str) -> bool:
        """Whether JobNimbus is asked what has changed in this account."""
        return self.catch_up_interval_s > 0 and instance in self.api_keys

    def targets(self) -> tuple[RelayTarget, ...]:
        """Where events are relayed to.

        Raises:
            ValueError: what is set is not understood; never of settings that were checked.
        """
        secret = self.relay_signing_secret or self.webhook_signing_secret
        return parse_targets(
            "" if self.relay_targets is None else self.relay_targets.get_secret_value(),
            secret=None if secret is None else secret.get_secret_value(),
            allow_private=self.relay_allow_private,
            instances=self.instances,
        )

    def clients(self) -> tuple[Client, ...]:
        """The callers that have a token of their own.

        Raises:
            ValueError: what is set is not understood; never of settings that were checked.
        """
        return parse_clients(
            "" if self.mcp_clients is None else self.mcp_clients.get_secret_value(),
            instances=self.instances,
            toolsets=(*TOOLSETS, "default", "all"),
            tokens=[token.get_secret_value() for token in self.mcp_auth_tokens],
        )

    def secret_values(self) -> frozenset[str]:
        """Every secret there is, for the log's redaction to look out for."""
        single = (
            self.redis_password,
            self.partition_secret,
            self.admin_token,
            self.webhook_secret,
            self.webhook_signing_secret,
            self.relay_signing_secret,
            self.kafka_sasl_password,
            *self.mcp_auth_tokens,
            *self.api_keys.values(),
            *self.webhook_secrets.values(),
        )
        found = {secret.get_secret_value() for secret in single if secret is not None}
        for target in self.targets():
            # its URL is as good as a password; a key that is no text is written as whsec_..., which is always masked
            found |= {target.url, target.key.decode(errors="replace")}
        found |= {client.token for client in self.clients()}
        for url in (self.store_url, self.database_url, *self.redis_urls.values()):
            if url is not None:
                found |= _passwords(url)
        return frozenset(found)


def _address(url: SecretStr | None) -> str:
    if url is None:
        return "embedded"
    parts = urlsplit(url.get_secret_value())
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _passwords(url: SecretStr) -> set[str]:
    """Every password in the URL of a store, as it is written there and as it is sent; all of what is no URL."""
    try:
        parts = urlsplit(url.get_secret_value())
    except ValueError:
        return {url.get_secret_value()}
    queried = parse_qs(parts.query)
    told = {parts.password, *queried.get("password", ()), *queried.get("sentinel_password", ())}
    written = {password for password in told if password}
    return written | {unquote(password) for password in written}


def _against_each_other(made: Settings) -> list[str]:
    """Mistakes that only show between two variables, each of which is fine."""
    pairs = (
        (
            "CACHE_ADAPTIVE_CALM_PER_H",
            made.cache_adaptive_calm_per_h,
            "CACHE_ADAPTIVE_BUSY_PER_H",
            made.cache_adaptive_busy_per_h,
        ),
        ("CACHE_ADAPTIVE_MIN_S", made.cache_adaptive_min_s, "CACHE_ADAPTIVE_MAX_S", made.cache_adaptive_max_s),
    )
    found = [f"{lower}: must not be above {upper}" for lower, low, upper, high in pairs if low > high]
    sasl = made.kafka_security_protocol.startswith("SASL")
    needs = (
        ("EVENTS_TRANSPORT", made.events_transport == "postgres" and made.database_url is None, "DATABASE_URL"),
        (
            "EVENTS_TRANSPORT",
            made.events_transport == "kafka" and not made.kafka_bootstrap_servers,
            "KAFKA_BOOTSTRAP_SERVERS",
        ),
        (
            "KAFKA_SASL_USERNAME",
            made.kafka_sasl_username is not None and made.kafka_sasl_password is None,
            "KAFKA_SASL_PASSWORD",
        ),
        (
            "KAFKA_SASL_PASSWORD",
            made.kafka_sasl_password is not None and made.kafka_sasl_username is None,
            "KAFKA_SASL_USERNAME",
        ),
        ("KAFKA_SECURITY_PROTOCOL", sasl and made.kafka_sasl_username is None, "KAFKA_SASL_USERNAME"),
        # it would connect as nobody, in the clear
        (
            "KAFKA_SASL_USERNAME",
            made.kafka_sasl_username is not None and not sasl,
            "KAFKA_SECURITY_PROTOCOL=SASL_SSL (or SASL_PLAINTEXT)",
        ),
    )
    found += [f"{name}: needs {missing} as well" for name, lacking, missing in needs if lacking]
    if made.events_transport == "kafka" and any(made.store_url_of(one) is None for one in made.instances):
        found.append("EVENTS_TRANSPORT: kafka needs a Redis beside it; set REDIS_URL")
    if made.events_transport == "postgres" and made.database_url is not None:
        # otherwise it may be of another program
        found += _wrong_database(made.database_url)
    try:
        made.targets()
    except ValueError as wrong:
        found.append(f"RELAY_TARGETS: {wrong}")
    try:
        made.clients()
    except ValueError as wrong:
        found.append(f"MCP_CLIENTS: {wrong}")
    found += oauth_mistakes(made.oauth_issuer_url, made.oauth_resource_url, made.oauth_jwks_url, made.allowed_hosts)
    return found


def _wrong_database(url: SecretStr) -> list[str]:
    try:
        known = urlsplit(url.get_secret_value()).scheme in ("postgresql", "postgres")
    except ValueError:  # brackets that do not match
        known = False
    return [] if known else ["DATABASE_URL: must be postgresql://user:password@host:port/database, percent-encoded"]


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
    if given.get("EVENTS_TRANSPORT", "").lower() == "postgres":
        made["EVENTS_RETENTION_DAYS"] = 30
    if "KAFKA_SASL_USERNAME" in given:
        made["KAFKA_SECURITY_PROTOCOL"] = "SASL_SSL"
    if hostname := given.get("RENDER_EXTERNAL_HOSTNAME"):
        made["ALLOWED_HOSTS"] = (*_LOOPBACK_HOSTS, hostname)
    try:
        api = urlsplit(check_http_url(given.get("JOBNIMBUS_API_BASE_URL", f"https://{_JOBNIMBUS_HOST}")))
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
            case "literal_error" | "enum":
                said = f"must be {context['expected']}".replace("'", "")
            case "zoneinfo_str":
                said = "must be a zone of the IANA database, e.g. America/New_York"
            case "value_error":
                said = str(context["error"])
            case _:
                said = "is not understood"
        made.append(f"{error['loc'][0]}: {said}")
    return made


_FIELDS = frozenset(field.alias for field in Settings.model_fields.values() if field.alias is not None)

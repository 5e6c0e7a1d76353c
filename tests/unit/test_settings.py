"""Settings: read once, checked whole, never echoed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobnimbus_mcp.cache.mode import Mode
from jobnimbus_mcp.errors import SettingsError
from jobnimbus_mcp.settings import VARIABLES, Settings

KEY = "k3y-of-the-account-0001"
SECRET = "s3cret-of-the-test-0001"


def test_nothing_set_gives_the_defaults() -> None:
    made = Settings.from_env({"HOME": "/home/somebody"})
    assert made.store_url is None
    assert made.store_address == "embedded"
    assert made.instances == ("default",)
    assert made.api_keys == {}
    assert not made.holds_api_key
    assert not made.webhooks_enabled
    assert made.jobnimbus_api_base_url == "https://app.jobnimbus.com/api1"
    assert made.jobnimbus_upload_base_url == "https://api.jobnimbus.com"
    assert made.jobnimbus_files_hosts == ("files.jobnimbus.com",)
    assert made.allowed_hosts == ("localhost", "127.0.0.1", "[::1]")
    assert made.cache_consistency is Mode.BARRIER
    assert made.consistency_overrides == {}
    assert (made.cache_stale_while_revalidate_s, made.cache_stale_if_error_s, made.cache_soft_timeout_ms) == (
        60,
        1_800,
        2_000,
    )
    assert made.index_settle_s == 6
    assert made.cache_adaptive_ttl
    assert (made.cache_adaptive_busy_per_h, made.cache_adaptive_calm_per_h) == (10, 2)
    assert (made.cache_adaptive_min_s, made.cache_adaptive_max_s) == (600, 3_600)
    assert (made.redis_command_timeout_ms, made.l1_max_mb, made.answer_max_bytes) == (100, 64, 24_576)
    assert made.account_timezone.key == "UTC"
    assert made.ttl_overrides == {}


@pytest.mark.parametrize(
    ("env", "mistake"),
    [
        ({"REDIS_PORT": "six"}, "REDIS_PORT: must be a whole number"),
        ({"REDIS_PORT": "6379.5"}, "REDIS_PORT: must be a whole number"),
        ({"REDIS_PORT": "0"}, "REDIS_PORT: must be at least 1"),
        ({"REDIS_PORT": "65536"}, "REDIS_PORT: must be at most 65535"),
        ({"REDIS_DB": "-1"}, "REDIS_DB: must be at least 0"),
        ({"REDIS_HOST": "redis://cache"}, "REDIS_HOST: must be host names"),
        ({"REDIS_COMMAND_TIMEOUT_MS": "0"}, "REDIS_COMMAND_TIMEOUT_MS: must be at least 1"),
        ({"REDIS_URL": "http://cache:6379"}, "REDIS_URL: must be redis://"),
        ({"REDIS_URL": "redis://"}, "REDIS_URL: must be redis://"),
        ({"REDIS_URL": "redis://cache:port"}, "REDIS_URL: must be redis://"),
        ({"REDIS_URL": "redis://cache/jobs"}, "REDIS_URL: must be redis://"),
        ({"REDIS_URL": "unix://"}, "REDIS_URL: must be redis://"),
        ({"REDIS_URL_STAMFORD": "redis://a"}, "REDIS_URL_STAMFORD: JOBNIMBUS_INSTANCES names no such account"),
        ({"JOBNIMBUS_INSTANCES": "a", "REDIS_URL_A": "http://cache"}, "REDIS_URL_A: must be redis://"),
        ({"CACHE_ENABLED": "perhaps"}, "CACHE_ENABLED: must be true or false"),
        ({"CACHE_CONSISTENCY": "eventual"}, "CACHE_CONSISTENCY: must be strict, barrier, bounded or any"),
        ({"CACHE_CONSISTENCY_JOBS": "ttl"}, "CACHE_CONSISTENCY_JOBS: must be strict, barrier, bounded or any"),
        ({"CACHE_CONSISTENCY_LEADS": "any"}, "CACHE_CONSISTENCY_LEADS: write CACHE_CONSISTENCY_<ENTITY>"),
        ({"CACHE_CONSISTENCY_JOBS_PEEK": "any"}, "CACHE_CONSISTENCY_JOBS_PEEK: write CACHE_CONSISTENCY_<ENTITY>"),
        ({"CACHE_STALE_WHILE_REVALIDATE_S": "-1"}, "CACHE_STALE_WHILE_REVALIDATE_S: must be at least 0"),
        ({"CACHE_STALE_IF_ERROR_S": "1h"}, "CACHE_STALE_IF_ERROR_S: must be a whole number"),
        ({"CACHE_SOFT_TIMEOUT_MS": "0"}, "CACHE_SOFT_TIMEOUT_MS: must be at least 1"),
        ({"INDEX_SETTLE_S": "61"}, "INDEX_SETTLE_S: must be at most 60"),
        ({"CACHE_ADAPTIVE_TTL": "2"}, "CACHE_ADAPTIVE_TTL: must be true or false"),
        (
            {"CACHE_ADAPTIVE_CALM_PER_H": "11"},
            "CACHE_ADAPTIVE_CALM_PER_H: must not be above CACHE_ADAPTIVE_BUSY_PER_H",
        ),
        ({"CACHE_ADAPTIVE_MAX_S": "599"}, "CACHE_ADAPTIVE_MIN_S: must not be above CACHE_ADAPTIVE_MAX_S"),
        ({"CACHE_TTL_LEADS": "60"}, "CACHE_TTL_LEADS: write CACHE_TTL_<ENTITY>"),
        ({"CACHE_TTL_JOBS_PEEK": "60"}, "CACHE_TTL_JOBS_PEEK: write CACHE_TTL_<ENTITY>"),
        ({"CACHE_TTL_JOBS_": "60"}, "CACHE_TTL_JOBS_: write CACHE_TTL_<ENTITY>"),
        ({"CACHE_TTL_JOBS": "0"}, "CACHE_TTL_JOBS: must be a whole number of seconds from 1 to 86400"),
        ({"CACHE_TTL_JOBS": "-5"}, "CACHE_TTL_JOBS: must be a whole number"),
        ({"CACHE_TTL_JOBS": "1h"}, "CACHE_TTL_JOBS: must be a whole number"),
        ({"L1_MAX_MB": "many"}, "L1_MAX_MB: must be a whole number"),
        ({"ANSWER_MAX_BYTES": "12"}, "ANSWER_MAX_BYTES: must be at least 1000"),
        ({"JOBNIMBUS_API_BASE_URL": "ftp://x/api1"}, "JOBNIMBUS_API_BASE_URL: must be an http"),
        ({"JOBNIMBUS_API_BASE_URL": "app.jobnimbus.com"}, "JOBNIMBUS_API_BASE_URL: must be an http"),
        ({"JOBNIMBUS_API_BASE_URL": "https://u:p@x/api1"}, "JOBNIMBUS_API_BASE_URL: must be an http"),
        ({"JOBNIMBUS_API_BASE_URL": "https://x/api1?a=b"}, "JOBNIMBUS_API_BASE_URL: must be an http"),
        ({"JOBNIMBUS_API_BASE_URL": "https://x:99999/"}, "JOBNIMBUS_API_BASE_URL: must be an http"),
        ({"JOBNIMBUS_INSTANCES": ","}, "JOBNIMBUS_INSTANCES: name at least one account"),
        ({"JOBNIMBUS_INSTANCES": "Stamford"}, "JOBNIMBUS_INSTANCES: names are"),
        ({"JOBNIMBUS_INSTANCES": "-a"}, "JOBNIMBUS_INSTANCES: names are"),
        ({"JOBNIMBUS_INSTANCES": "a" * 33}, "JOBNIMBUS_INSTANCES: names are"),
        ({"JOBNIMBUS_INSTANCES": "a,b,a"}, "JOBNIMBUS_INSTANCES: every name must be different"),
        ({"JOBNIMBUS_INSTANCES": "a-b,a_b"}, "JOBNIMBUS_INSTANCES: every name must be different"),
        ({"JOBNIMBUS_API_KEY": "short"}, "JOBNIMBUS_API_KEY: a JobNimbus key is 16 to 256"),
        ({"JOBNIMBUS_API_KEY": "a" * 257}, "JOBNIMBUS_API_KEY: a JobNimbus key is 16 to 256"),
        ({"JOBNIMBUS_API_KEY": "with blanks in the key"}, "JOBNIMBUS_API_KEY: a JobNimbus key is 16 to 256"),
        ({"JOBNIMBUS_API_KEY_STAMFORD": KEY}, "JOBNIMBUS_API_KEY_STAMFORD: JOBNIMBUS_INSTANCES names no such account"),
        ({"JOBNIMBUS_INSTANCES": "a", "JOBNIMBUS_API_KEY_A": "x"}, "JOBNIMBUS_API_KEY_A: a JobNimbus key is"),
        ({"JOBNIMBUS_INSTANCES": "a,b", "JOBNIMBUS_API_KEY": KEY}, "JOBNIMBUS_API_KEY_A and JOBNIMBUS_API_KEY_B"),
        ({"WEBHOOK_SECRET_A": SECRET}, "WEBHOOK_SECRET_A: JOBNIMBUS_INSTANCES names no such account"),
        ({"JOBNIMBUS_INSTANCES": "a", "WEBHOOK_SECRET_A": "x"}, "WEBHOOK_SECRET_A: must have at least 16"),
        ({"JOBNIMBUS_MAX_REQUESTS_PER_S": "nan"}, "JOBNIMBUS_MAX_REQUESTS_PER_S: must be a number"),
        ({"JOBNIMBUS_MAX_REQUESTS_PER_S": "-1"}, "JOBNIMBUS_MAX_REQUESTS_PER_S: must be at least 0"),
        ({"JOBNIMBUS_SHARED_PARTITIONS": "abc+def"}, "JOBNIMBUS_SHARED_PARTITIONS: write groups of digests"),
        ({"JOBNIMBUS_SHARED_PARTITIONS": "a" * 32}, "JOBNIMBUS_SHARED_PARTITIONS: write groups of digests"),
        ({"PARTITION_SECRET": "short"}, "PARTITION_SECRET: must have at least 16"),
        ({"MCP_AUTH_TOKENS": f"{SECRET},short"}, "MCP_AUTH_TOKENS: must have at least 16"),
        ({"ADMIN_TOKEN": "fifteen-letters"}, "ADMIN_TOKEN: must have at least 16"),
        ({"ADMIN_TOKEN": "sechzehn-Zeichen-ä"}, "ADMIN_TOKEN: must be printable ASCII"),
        ({"WEBHOOK_SECRET": "short"}, "WEBHOOK_SECRET: must have at least 16"),
        ({"WEBHOOK_SIGNING_SECRET": "short"}, "WEBHOOK_SIGNING_SECRET: must have at least 16"),
        ({"ACCOUNT_TIMEZONE": "Mars/Base"}, "ACCOUNT_TIMEZONE: must be a zone"),
        ({"ACCOUNT_TIMEZONE": "../../etc/passwd"}, "ACCOUNT_TIMEZONE: must be a zone"),
        ({"ALLOWED_HOSTS": "https://crm.example.com"}, "ALLOWED_HOSTS: must be host names"),
        ({"LOG_LEVEL": "loud"}, "LOG_LEVEL: must be debug, info, warning, error or critical"),
        ({"LOG_FORMAT": "xml"}, "LOG_FORMAT: must be auto, json or console"),
        (
            {"EVENTS_TRANSPORT": "postgres", "DATABASE_URL": "mysql://u:p@host/db"},
            "DATABASE_URL: must be postgresql://",
        ),
        (
            {"EVENTS_TRANSPORT": "postgres", "DATABASE_URL": "postgresql://u:p@[host/db"},
            "DATABASE_URL: must be postgresql://",
        ),
        ({"EVENTS_TRANSPORT": "postgres", "DATABASE_URL": "host=db user=u"}, "DATABASE_URL: must be postgresql://"),
        ({"KAFKA_SASL_PASSWORD": SECRET}, "KAFKA_SASL_PASSWORD: needs KAFKA_SASL_USERNAME"),
        ({"KAFKA_SECURITY_PROTOCOL": "SASL_SSL"}, "KAFKA_SECURITY_PROTOCOL: needs KAFKA_SASL_USERNAME"),
        (
            {"KAFKA_SASL_USERNAME": "u", "KAFKA_SASL_PASSWORD": SECRET, "KAFKA_SECURITY_PROTOCOL": "PLAINTEXT"},
            "KAFKA_SASL_USERNAME: needs KAFKA_SECURITY_PROTOCOL=SASL_SSL",
        ),
    ],
)
def test_a_bad_value_is_refused_by_the_variable_s_name(env: dict[str, str], mistake: str) -> None:
    with pytest.raises(SettingsError) as refused:
        Settings.from_env(env)
    assert mistake in refused.value.public_message


def test_all_mistakes_are_told_at_once_in_one_line_without_any_value() -> None:
    with pytest.raises(SettingsError) as refused:
        Settings.from_env(
            {
                "ADMIN_TOKEN": "hunter2",
                "MCP_AUTH_TOKENS": "swordfish,opensesame",
                "JOBNIMBUS_API_KEY": "not a key at all",
                "REDIS_URL": "http://:pa55word@host:1",
                "REDIS_PORT": "abc",
                "CACHE_TTL_NOTHING": "5",
            }
        )
    said = refused.value.public_message
    for name in ("ADMIN_TOKEN", "MCP_AUTH_TOKENS", "JOBNIMBUS_API_KEY", "REDIS_URL", "REDIS_PORT", "CACHE_TTL_NOTHING"):
        assert said.count(f"{name}: ") == 1
    for value in ("hunter2", "swordfish", "opensesame", "not a key at all", "pa55word", "abc"):
        assert value not in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("env", "url", "address"),
    [
        ({"REDIS_HOST": "cache"}, "redis://cache:6379/0", "redis://cache:6379/0"),
        (
            {"REDIS_HOST": "cache", "REDIS_PORT": "6380", "REDIS_DB": "2", "REDIS_TLS_ENABLED": "TRUE"},
            "rediss://cache:6380/2",
            "rediss://cache:6380/2",
        ),
        (
            {"REDIS_HOST": "cache", "REDIS_PASSWORD": "p@ss/w:rd"},
            "redis://:p%40ss%2Fw%3Ard@cache:6379/0",
            "redis://cache:6379/0",
        ),
        ({"REDIS_HOST": "[::1]"}, "redis://[::1]:6379/0", "redis://[::1]:6379/0"),
        ({"REDIS_HOST": "cache", "REDIS_URL": "redis://u:p@other:1/3"}, "redis://u:p@other:1/3", "redis://other:1/3"),
        ({"REDIS_URL": "unix:///run/redis.sock"}, "unix:///run/redis.sock", "unix:///run/redis.sock"),
        ({"REDIS_URL": "rediss://cache"}, "rediss://cache", "rediss://cache"),
        (
            {"REDIS_URL": "redis+cluster://u:p@a:1,b:2"},
            "redis+cluster://u:p@a:1,b:2",
            "redis+cluster://a:1,b:2",
        ),
        (
            {"REDIS_URL": "redis+sentinel://u:p@a:1,b:2/main/0?sentinel_password=q"},
            "redis+sentinel://u:p@a:1,b:2/main/0?sentinel_password=q",
            "redis+sentinel://a:1,b:2/main/0",
        ),
    ],
)
def test_the_store_is_the_url_or_else_the_parts(env: dict[str, str], url: str, address: str) -> None:
    made = Settings.from_env(env)
    assert made.store_url is not None
    assert made.store_url.get_secret_value() == url
    assert made.store_address == address


def test_an_account_s_own_redis_wins_over_that_of_all() -> None:
    made = Settings.from_env(
        {
            "JOBNIMBUS_INSTANCES": "stamford,new-haven",
            "REDIS_URL": "redis://shared:6379/0",
            "REDIS_URL_NEW_HAVEN": "rediss://u:p@own:6380",
        }
    )
    stamford, new_haven = made.store_url_of("stamford"), made.store_url_of("new-haven")
    assert stamford is not None
    assert new_haven is not None
    assert stamford.get_secret_value() == "redis://shared:6379/0"
    assert new_haven.get_secret_value() == "rediss://u:p@own:6380"
    assert made.store_address_of("stamford") == "redis://shared:6379/0"
    assert made.store_address_of("new-haven") == "rediss://own:6380"


def test_an_account_may_have_a_redis_while_the_others_are_kept_in_this_process() -> None:
    made = Settings.from_env({"JOBNIMBUS_INSTANCES": "a,b", "REDIS_URL_A": "redis://own"})
    assert made.store_address_of("a") == "redis://own"
    assert made.store_url_of("b") is None
    assert made.store_address_of("b") == made.store_address == "embedded"


def test_accounts_have_keys_and_webhook_secrets_of_their_own() -> None:
    made = Settings.from_env(
        {
            "JOBNIMBUS_INSTANCES": "stamford, new-haven",
            "JOBNIMBUS_API_KEY_NEW_HAVEN": KEY,
            "WEBHOOK_SECRET_STAMFORD": SECRET,
        }
    )
    assert made.instances == ("stamford", "new-haven")
    assert {name: key.get_secret_value() for name, key in made.api_keys.items()} == {"new-haven": KEY}
    assert {name: key.get_secret_value() for name, key in made.webhook_secrets.items()} == {"stamford": SECRET}
    assert made.holds_api_key
    assert made.webhooks_enabled


def test_the_plain_key_is_the_one_account_s_and_its_own_name_wins() -> None:
    plain = Settings.from_env({"JOBNIMBUS_INSTANCES": "solo", "JOBNIMBUS_API_KEY": KEY})
    named = Settings.from_env(
        {"JOBNIMBUS_INSTANCES": "solo", "JOBNIMBUS_API_KEY": KEY, "JOBNIMBUS_API_KEY_SOLO": KEY[::-1]}
    )
    assert plain.api_keys["solo"].get_secret_value() == KEY
    assert named.api_keys["solo"].get_secret_value() == KEY[::-1]


def test_lifetimes_are_set_by_kind_and_by_kind_and_operation() -> None:
    made = Settings.from_env(
        {"CACHE_TTL_JOBS": "60", "CACHE_TTL_CONTACTS_SEARCH": "5", "CACHE_TTL_ATTACHMENTS_DETAIL": "86400"}
    )
    assert made.ttl_overrides == {("jobs", None): 60, ("contacts", "search"): 5, ("attachments", "detail"): 86_400}


def test_consistency_is_set_for_all_by_kind_and_by_kind_and_operation_in_any_case() -> None:
    made = Settings.from_env(
        {
            "CACHE_CONSISTENCY": "Strict",
            "CACHE_CONSISTENCY_TASKS": "ANY",
            "CACHE_CONSISTENCY_JOBS_SEARCH": "bounded",
        }
    )
    assert made.cache_consistency is Mode.STRICT
    assert made.consistency_overrides == {("tasks", None): Mode.ANY, ("jobs", "search"): Mode.BOUNDED}


def test_uploads_and_downloads_stay_with_an_api_that_is_not_jobnimbus_s() -> None:
    made = Settings.from_env({"JOBNIMBUS_API_BASE_URL": "http://127.0.0.1:9000/api1/"})
    assert made.jobnimbus_api_base_url == "http://127.0.0.1:9000/api1"
    assert made.jobnimbus_upload_base_url == "http://127.0.0.1:9000"
    assert made.jobnimbus_files_hosts == ("127.0.0.1:9000",)
    told = Settings.from_env(
        {
            "JOBNIMBUS_API_BASE_URL": "http://127.0.0.1:9000/api1",
            "JOBNIMBUS_UPLOAD_BASE_URL": "https://up.example.com/",
            "JOBNIMBUS_FILES_HOSTS": "files.example.com, CDN.example.com",
        }
    )
    assert told.jobnimbus_upload_base_url == "https://up.example.com"
    assert told.jobnimbus_files_hosts == ("files.example.com", "cdn.example.com")


def test_render_s_host_name_is_allowed_unless_the_list_is_given() -> None:
    render = {"RENDER_EXTERNAL_HOSTNAME": "crm.onrender.com"}
    assert Settings.from_env(render).allowed_hosts[-1] == "crm.onrender.com"
    assert "localhost" in Settings.from_env(render).allowed_hosts
    assert Settings.from_env(render | {"ALLOWED_HOSTS": "a.example.com"}).allowed_hosts == ("a.example.com",)


def test_the_environment_wins_over_the_env_file_and_blank_is_not_set(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text(f'L1_MAX_MB=8\nREDIS_DB=3\nADMIN_TOKEN="{SECRET}"\n# REDIS_HOST=ghost\n')
    made = Settings.from_env({"L1_MAX_MB": "16", "REDIS_PORT": "  "}, env_file=file)
    assert (made.l1_max_mb, made.redis_db, made.redis_port, made.redis_host) == (16, 3, 6379, None)
    assert made.admin_token is not None
    assert made.admin_token.get_secret_value() == SECRET
    assert Settings.from_env({}, env_file=tmp_path / "missing").l1_max_mb == 64


def test_an_env_file_that_cannot_be_read_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"A=\xff\xfe\n")
    with pytest.raises(SettingsError, match="cannot be read"):
        Settings.from_env({}, env_file=tmp_path / ".env")


def test_variables_of_others_are_ignored() -> None:
    assert Settings.from_env({"PATH": "/bin", "REDIS_TIMEOUT": "x", "RELAY_TARGET": "x", "PORT": "10000"})
    with_a_database = Settings.from_env({"DATABASE_URL": "mysql://u:others-password@[host/db"})
    assert "others-password" in "".join(with_a_database.secret_values())


def test_the_state_directory_follows_the_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    home = {"HOME": "/home/a"}
    cases = [
        ("linux", home, "/home/a/.local/state/jobnimbus-mcp"),
        ("linux", home | {"XDG_STATE_HOME": "/state"}, "/state/jobnimbus-mcp"),
        ("linux", home | {"XDG_STATE_HOME": "relative"}, "/home/a/.local/state/jobnimbus-mcp"),
        ("darwin", home, "/home/a/Library/Application Support/jobnimbus-mcp"),
        ("win32", home | {"LOCALAPPDATA": "/local"}, "/local/jobnimbus-mcp"),
        ("linux", home | {"DATA_DIR": "/data"}, "/data"),
    ]
    for platform, env, expected in cases:
        monkeypatch.setattr("sys.platform", platform)
        assert Settings.from_env(env).data_dir == Path(expected)


def test_no_secret_shows_in_the_settings_repr_and_all_are_known_to_the_redaction() -> None:
    values = {
        "ADMIN_TOKEN": "admin-token-000001",
        "MCP_AUTH_TOKENS": "mcp-token-00000001,mcp-token-00000002",
        "PARTITION_SECRET": "partition-secret-1",
        "WEBHOOK_SECRET": "webhook-secret-001",
        "WEBHOOK_SECRET_DEFAULT": "webhook-secret-002",
        "WEBHOOK_SIGNING_SECRET": "whsec_signing-0001",
        "JOBNIMBUS_API_KEY": KEY,
        "REDIS_PASSWORD": "redis-password-1",
        "REDIS_URL": "redis://:url-password-01@cache:6379",
        "REDIS_URL_DEFAULT": "redis+sentinel://u:url-p%40ssword-02@a:1,b:2/main?sentinel_password=url-password-03",
    }
    made = Settings.from_env(values)
    secrets = {part for name, value in values.items() if "URL" not in name for part in value.split(",")}
    secrets |= {"url-password-01", "url-p%40ssword-02", "url-p@ssword-02", "url-password-03"}
    assert made.secret_values() == secrets
    assert not [secret for secret in secrets if secret in repr(made)]


def test_what_targets_and_transports_are_opened_with_is_known_to_the_redaction_and_shown_nowhere() -> None:
    values = {
        "RELAY_TARGETS": '[{"url": "https://n8n.example.com/webhook/1f2e", "secret": "target-secret-001"}]',
        "DATABASE_URL": "postgresql://u:db-p%40ssword@a:1,b:2/events?sslmode=require",
        "KAFKA_SASL_USERNAME": "u",
        "KAFKA_SASL_PASSWORD": "kafka-password-1",
    }
    made = Settings.from_env(values)
    secrets = {"target-secret-001", "https://n8n.example.com/webhook/1f2e", "db-p%40ssword", "db-p@ssword"}
    assert made.secret_values() == secrets | {"kafka-password-1"}
    assert not [secret for secret in made.secret_values() if secret in repr(made) + repr(made.targets())]


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings.from_env({}).l1_max_mb = 1


NAMES = st.sampled_from([row.name for row in VARIABLES if "<" not in row.name])


@given(st.dictionaries(NAMES, st.text(max_size=40), max_size=6))
def test_any_text_in_any_variable_is_either_understood_or_a_settings_error(env: dict[str, str]) -> None:
    said = ""
    try:
        Settings.from_env({"HOME": "/home/a"} | env)
    except SettingsError as refused:
        said = refused.public_message
    assert said == "" or any(name in said for name in env)

"""How the setting that names the targets is read, and which events a target chooses."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from jobnimbus_mcp.consumers.relay_targets import TARGETS_MOST, RelayTarget, parse_targets
from jobnimbus_mcp.events.event import Event

SECRET = "a-secret-of-all-targets"
HOOK = "https://hooks.example.com/catch/123/abc?token=s3cret"
ACCOUNTS = ("stamford", "guilford")


def parsed(text: str, *, secret: str | None = SECRET, allow_private: bool = False) -> tuple[RelayTarget, ...]:
    return parse_targets(text, secret=secret, allow_private=allow_private, instances=ACCOUNTS)


def one(**fields: Any) -> RelayTarget:
    (target,) = parsed(json.dumps([{"url": HOOK, **fields}]))
    return target


def event(**fields: Any) -> Event:
    told: dict[str, Any] = {
        "event_id": "0" * 32,
        "instance": "stamford",
        "name": "job.updated",
        "entity": "jobs",
        "record_id": "j1",
        "action": "updated",
        "tags": ("jobs",),
        "source": "webhook",
        "received_at": 1_790_000_000.0,
    }
    return Event(**{**told, **fields})


@pytest.mark.parametrize("text", ["", "  ", ",", "[]"])
def test_nothing_set_is_no_target(text: str) -> None:
    assert parsed(text) == ()


def test_urls_may_be_listed_with_commas_and_share_the_one_secret() -> None:
    first, second = parsed(f" {HOOK} , https://n8n.example.org:8443/webhook/x ")
    assert (first.url, second.url) == (HOOK, "https://n8n.example.org:8443/webhook/x")
    assert first.key == second.key == SECRET.encode()
    assert first.name.startswith("hooks-example-com-")
    assert second.name.startswith("n8n-example-org-")


def test_two_urls_of_one_host_have_different_names_that_stay_the_same() -> None:
    names = [target.name for target in parsed("https://a.example/1,https://a.example/2")]
    assert len(set(names)) == 2
    assert names == [target.name for target in parsed("https://a.example/1,https://a.example/2")]


@pytest.mark.parametrize(
    "host", ["a" * 63 + ".example", "[2606:4700::1111]", "_x.example", "EXAMPLE.com", "x.example."]
)
def test_every_host_gives_a_name_that_is_allowed(host: str) -> None:
    (target,) = parsed(f"https://{host}/x")
    assert one(name=target.name).name == target.name


def test_objects_say_more() -> None:
    target = one(name="zapier", events=["job.*"], instances=["guilford"], sources=["webhook", "write"], secret="x" * 16)
    assert target == RelayTarget(
        "zapier", HOOK, b"x" * 16, ("job.*",), frozenset({"guilford"}), frozenset({"webhook", "write"})
    )


def test_neither_the_secret_nor_the_url_shows_in_the_repr() -> None:
    shown = repr(one(secret="whsec_MDEyMzQ1Njc4OWFiY2RlZg=="))
    assert "0123456789abcdef" not in shown
    assert "MDEy" not in shown
    assert "hooks.example.com/" not in shown


@pytest.mark.parametrize("padding", ["", "=="])
def test_a_secret_of_the_standard_is_read_as_base64(padding: str) -> None:
    assert one(secret=f"whsec_MDEyMzQ1Njc4OWFiY2RlZg{padding}").key == b"0123456789abcdef"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("not-a-url", "https"),
        ("ftp://files.example.com/x", "https"),
        ("http://hooks.example.com/x", "RELAY_ALLOW_PRIVATE"),
        ("https://user:pw@hooks.example.com/x", "user"),
        ("https://hooks.example.com/x#part", "fragment"),
        ("https:///nohost", "host"),
        ("https://hooks.example.com:0/x", "port"),
        ("https://hooks.example.com:70000/x", "no URL"),
        ("https://hooks.example.com:x/x", "no URL"),
        ("https://[::1/x", "no URL"),
        ("https://höst.example.com/x", "ASCII"),
        ("https://hooks.example.com/a b", "ASCII"),
        ("https://hooks.example.com\\@evil.example/x", "ASCII"),
        ("https://hooks.example.com/" + "x" * 2000, "2000"),
        ("https://a.example/x,https://a.example/x", "name"),
        (",".join(f"https://a.example/{number}" for number in range(TARGETS_MOST + 1)), "at most 32"),
        ("[", "no JSON"),
        ("{}", "array"),
        ('["https://a.example/x"]', "array"),
        ("[{}]", '"url"'),
        ('[{"url": 5}]', '"url"'),
        ('[{"url": "https://a.example/x", "headers": {}}]', "fields"),
        ('[{"url": "https://a.example/x", "name": "Upper"}]', "name"),
        ('[{"url": "https://a.example/x", "name": ""}]', "name"),
        ('[{"url": "https://a.example/x", "name": null}]', "name"),
        ('[{"url": "https://a.example/x", "name": "' + "a" * 41 + '"}]', "name"),
        ('[{"url": "https://a.example/x", "name": "n"}, {"url": "https://b.example/x", "name": "n"}]', "name"),
        ('[{"url": "https://a.example/x", "events": "job.*"}]', '"events"'),
        ('[{"url": "https://a.example/x", "events": []}]', '"events"'),
        ('[{"url": "https://a.example/x", "events": ["job"]}]', '"events"'),
        ('[{"url": "https://a.example/x", "events": ["job.up*"]}]', '"events"'),
        ('[{"url": "https://a.example/x", "instances": ["elsewhere"]}]', "account"),
        ('[{"url": "https://a.example/x", "sources": ["rumour"]}]', '"sources"'),
        ('[{"url": "https://a.example/x", "secret": "short-secret"}]', "16 characters"),
        ('[{"url": "https://a.example/x", "secret": "whsec_!!!!!!!!!!!!!!!!"}]', "base64"),
        ('[{"url": "https://a.example/x", "secret": "whsec_c2hvcnQ="}]', "16 bytes"),
        ('[{"url": "https://a.example/x", "secret": 5}]', "text"),
    ],
)
def test_what_cannot_be_used_is_refused_without_being_repeated(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)) as refused:
        parsed(text)
    for part in ("example", "short", "pw", "Upper", "elsewhere", "rumour", "c2hv", "headers", "/x"):
        assert part not in str(refused.value)


def test_the_mistake_is_told_by_the_target_s_number() -> None:
    with pytest.raises(ValueError, match=r"^target 2: "):
        parsed("https://a.example/1,http://b.example/2")


def test_without_any_secret_the_setting_to_set_is_named() -> None:
    with pytest.raises(ValueError, match=r"RELAY_SIGNING_SECRET.*WEBHOOK_SIGNING_SECRET"):
        parsed(HOOK, secret=None)
    assert parsed(json.dumps([{"url": HOOK, "secret": "y" * 16}]), secret=None)[0].key == b"y" * 16


@pytest.mark.parametrize(
    ("url", "accepted"),
    [
        ("http://127.0.0.1:5678/x", True),
        ("http://[::1]:5678/x", True),
        ("http://n8n.internal/x", True),
        ("http://1.1.1.1/x", False),
        ("http://169.254.169.254/latest", False),
        ("https://10.0.0.1/x", True),
    ],
)
def test_with_private_targets_allowed_plain_http_is_for_those_alone(url: str, accepted: bool) -> None:
    if accepted:
        (target,) = parsed(url, allow_private=True)
        assert target.plain is url.startswith("http:")
    else:
        with pytest.raises(ValueError, match="private addresses only"):
            parsed(url, allow_private=True)


def test_a_scheme_in_capitals_is_no_plain_one() -> None:
    (target,) = parsed("HTTPS://a.example/x")
    assert not target.plain


@pytest.mark.parametrize(
    ("patterns", "name", "chosen"),
    [
        (None, "job.updated", True),
        (["*"], "job.updated", True),
        (["*.*"], "job.changed", True),
        (["job.updated"], "job.updated", True),
        (["job.updated"], "job.created", False),
        (["job.*"], "job.deleted", True),
        (["job.*"], "jobs.deleted", False),
        (["job.*"], "contact.deleted", False),
        (["*.deleted"], "contact.deleted", True),
        (["*.deleted"], "contact.updated", False),
        (["job.created", "*.deleted"], "task.deleted", True),
    ],
)
def test_patterns_choose_by_the_event_s_name(patterns: list[str] | None, name: str, chosen: bool) -> None:
    target = one() if patterns is None else one(events=patterns)
    assert target.chooses(event(name=name)) is chosen


@pytest.mark.parametrize(
    ("fields", "changed", "chosen"),
    [
        ({"instances": ["stamford"]}, {}, True),
        ({"instances": ["guilford"]}, {}, False),
        ({"sources": ["webhook"]}, {}, True),
        ({"sources": ["catch_up", "write"]}, {}, False),
        ({}, {"record_id": "", "name": "admin.invalidate", "source": "admin"}, False),
        ({}, {"name": "admin.invalidate", "source": "admin"}, True),
    ],
)
def test_a_target_hears_of_its_accounts_and_sources_and_only_of_records(
    fields: dict[str, Any], changed: dict[str, Any], chosen: bool
) -> None:
    assert one(**fields).chooses(event(**changed)) is chosen

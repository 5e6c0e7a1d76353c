"""Redis URLs: what is read out of them, and that what is refused is not repeated."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from jobnimbus_mcp.cache.address import Address, Kind, parse
from jobnimbus_mcp.cache.connect_redis import connect, is_cluster

SENTINELS = (("a", 26379), ("b", 26380))


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://cache", Address(Kind.SERVER, (("cache", 6379),))),
        ("redis://cache:6380/3", Address(Kind.SERVER, (("cache", 6380),), database=3)),
        ("redis://cache?db=3", Address(Kind.SERVER, (("cache", 6379),), database=3)),
        ("redis://[::1]:6380", Address(Kind.SERVER, (("::1", 6380),))),
        ("redis://:p%40ss%2Fw%3Ard@cache", Address(Kind.SERVER, (("cache", 6379),), password="p@ss/w:rd")),
        ("redis://j%6Fe:a:b@cache", Address(Kind.SERVER, (("cache", 6379),), username="joe", password="a:b")),
        ("rediss://cache", Address(Kind.SERVER, (("cache", 6379),), tls={})),
        (
            "rediss://cache?ssl_ca_certs=/etc/ca.pem&ssl_check_hostname=no&ssl_cert_reqs=required",
            Address(
                Kind.SERVER,
                (("cache", 6379),),
                tls={"ssl_ca_certs": "/etc/ca.pem", "ssl_check_hostname": False, "ssl_cert_reqs": "required"},
            ),
        ),
        ("unix:///run/redis.sock?db=1", Address(Kind.SOCKET, path="/run/redis.sock", database=1)),
        (
            "unix:///run/r%20s?username=joe&password=p%2Fw",
            Address(Kind.SOCKET, path="/run/r s", username="joe", password="p/w"),
        ),
        ("redis+sentinel://a,b:26380/jobs", Address(Kind.SENTINEL, SENTINELS, master="jobs")),
        ("redis+sentinel://a, b:26380/jobs/2", Address(Kind.SENTINEL, SENTINELS, master="jobs", database=2)),
        (
            "rediss+sentinel://joe:p%2Fw@a,b:26380/jobs?sentinel_username=s&sentinel_password=t%2Fu",
            Address(
                Kind.SENTINEL,
                SENTINELS,
                master="jobs",
                username="joe",
                password="p/w",
                sentinel_username="s",
                sentinel_password="t/u",
                tls={},
            ),
        ),
        ("redis+cluster://:w@a,b:7000", Address(Kind.CLUSTER, (("a", 6379), ("b", 7000)), password="w")),
        ("redis+cluster://a/0", Address(Kind.CLUSTER, (("a", 6379),))),
        ("rediss+cluster://a?ssl_certfile=c", Address(Kind.CLUSTER, (("a", 6379),), tls={"ssl_certfile": "c"})),
    ],
)
def test_an_address_is_read_from_its_url(url: str, address: Address) -> None:
    assert parse(url) == address
    assert is_cluster(url) is (address.kind is Kind.CLUSTER)


@pytest.mark.parametrize(
    ("url", "wrong"),
    [
        ("http://s3cret@cache", "begins with none of redis://"),
        ("redis:cache", "must name host"),
        ("redis://", "must name host"),
        ("redis://:s3cret@", "must name host"),
        ("redis://cache:port", "must name host"),
        ("redis://cache:0", "must name host"),
        ("redis://cache:65536", "must name host"),
        ("redis://:s3/cret@cache", "must name host"),
        ("redis://:s3#cret@cache", "holds a #"),
        ("redis://[::1", "is not a URL"),
        ("redis://a,b", "names several hosts"),
        ("redis://cache/jobs", "database number"),
        ("redis://cache/1/2", "database number"),
        ("redis://cache?db=one", "database number"),
        ("redis://cache?ssl_ca_certs=s3cret", "mean nothing here: ssl_ca_certs; TLS needs rediss"),
        ("redis://cache?decode_responses=s3cret", "mean nothing here: decode_responses"),
        ("redis://cache?S3CRET=1", "mean nothing here: something"),
        ("rediss://cache?ssl_cert_reqs=s3cret", "none, optional or required"),
        ("rediss://cache?ssl_check_hostname=s3cret", "true or false"),
        ("unix://", "must name the socket"),
        ("redis+sentinel://a,b", "master-name"),
        ("redis+sentinel://a,b/", "master-name"),
        ("redis+sentinel://a,,b/jobs", "must name host"),
        ("redis+sentinel://a/jobs/x", "database number"),
        ("redis+cluster://a/1", "only number 0"),
        ("redis+cluster://a?sentinel_password=s3cret", "mean nothing here: sentinel_password"),
    ],
)
def test_what_is_wrong_is_said_without_repeating_it(url: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=r".+") as refused:
        parse(url)
    assert wrong in str(refused.value)
    assert "s3" not in str(refused.value).lower()
    assert refused.value.__cause__ is None


@given(some.text(max_size=40), some.sampled_from(["redis://", "rediss+sentinel://", "redis+cluster://", "unix://", ""]))
def test_any_text_is_an_address_or_a_value_error(text: str, scheme: str) -> None:
    try:
        address = parse(scheme + text)
    except ValueError:
        return
    assert address.places or address.path


def test_an_address_shown_hides_its_credentials() -> None:
    shown = repr(parse("redis+sentinel://joe:s3cret@a/jobs?sentinel_username=ann&sentinel_password=s3cret"))
    assert not any(word in shown for word in ("joe", "ann", "s3cret"))


def test_a_cluster_needs_a_tenant() -> None:
    with pytest.raises(ValueError, match="tenant"):
        connect("redis+cluster://a")

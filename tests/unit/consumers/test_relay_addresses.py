"""Which addresses events may be sent to: the table."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobnimbus_mcp.consumers.relay_addresses import Reach, reach_of, refusal

PUBLIC = [
    "1.1.1.1",
    "93.184.216.34",
    "172.15.255.255",
    "172.32.0.1",
    "100.63.255.255",
    "100.128.0.1",
    "2606:4700::1111",
]
PUBLIC_IN_IPV6 = ["::ffff:93.184.216.34", "64:ff9b::5db8:d822"]
PRIVATE = [
    *("10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "127.0.0.1", "127.255.0.9", "100.64.0.1"),
    *("100.127.255.255", "198.18.0.1", "::1", "fc00::1", "fd12:3456::1"),
    *("::ffff:127.0.0.1", "::ffff:10.1.2.3", "64:ff9b::7f00:1", "64:ff9b::c0a8:101"),
]
NEVER = [
    *("0.0.0.0", "0.1.2.3", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255", "192.0.2.1", "203.0.113.5"),
    *("169.254.169.254", "169.254.0.1", "168.63.129.16", "100.100.100.200", "192.0.0.192", "192.88.99.1"),
    *("::", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "2001:db8::1", "fd00:ec2::254", "fd20:ce::254"),
    *("2002:7f00:1::", "2002:5db8:d822::", "2001:0:4136:e378::1", "64:ff9b:1::7f00:1", "::127.0.0.1", "100::1"),
    *("::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "4000::1", "192.0.0.8", "192.0.0.170", "3fff::1"),
    *("", "localhost", "127.1", "0x7f000001", "2130706433", "127.0.0.1 "),
]


@pytest.mark.parametrize(
    ("address", "reach"),
    [
        *((address, Reach.PUBLIC) for address in (*PUBLIC, *PUBLIC_IN_IPV6)),
        *((address, Reach.PRIVATE) for address in PRIVATE),
        *((address, Reach.NEVER) for address in NEVER),
    ],
)
def test_an_address_is_public_private_or_out_of_the_question(address: str, reach: Reach) -> None:
    assert reach_of(address) is reach


@pytest.mark.parametrize(
    ("address", "plain", "allow_private", "word"),
    [
        ("1.1.1.1", False, False, None),
        ("1.1.1.1", False, True, None),
        ("1.1.1.1", True, True, "plain_http"),
        ("1.1.1.1", True, False, "plain_http"),
        ("10.0.0.1", False, False, "private_address"),
        ("10.0.0.1", True, False, "private_address"),
        ("10.0.0.1", False, True, None),
        ("10.0.0.1", True, True, None),
        ("169.254.169.254", False, True, "private_address"),
        ("169.254.169.254", True, True, "private_address"),
    ],
)
def test_allowing_private_addresses_opens_those_and_no_others(
    address: str, plain: bool, allow_private: bool, word: str | None
) -> None:
    assert refusal(address, plain=plain, allow_private=allow_private) == word


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_reaches_as_far_in_whatever_ipv6_form_it_is_spelled(address: IPv4Address) -> None:
    high, low = divmod(int(address), 1 << 16)
    assert reach_of(f"::ffff:{address}") is reach_of(str(address))
    assert reach_of(f"64:ff9b::{high:x}:{low:x}") is reach_of(str(address))


@given(st.ip_addresses())
def test_what_is_not_global_by_the_registries_is_never_public(address: IPv4Address | IPv6Address) -> None:
    if reach_of(str(address)) is Reach.PUBLIC:
        assert address.is_global
        assert not address.is_multicast

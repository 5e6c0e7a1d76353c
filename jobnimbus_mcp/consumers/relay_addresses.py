"""Which network addresses events may be sent to: whoever names a target must not reach into the network we stand in.

Source: IANA special-purpose address registries (IPv4 and IPv6); the metadata addresses as the clouds document them.
"""

from __future__ import annotations

from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

__all__ = ["Reach", "reach_of", "refusal"]


class Reach(StrEnum):
    """How far away an address is. `NEVER`: nothing that takes events lives there: link-local, cloud metadata,
    multicast, reserved, unspecified, tunnels whose other end cannot be told."""

    PUBLIC = "public"
    PRIVATE = "private"
    NEVER = "never"


_PRIVATE_4 = tuple(
    map(IPv4Network, ("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "198.18.0.0/15"))
)
_NEVER_4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",
            # of protocols; Oracle's metadata is among them
            "192.0.0.0/24",
            "169.254.0.0/16",
            "192.88.99.0/24",
            "224.0.0.0/4",
            "240.0.0.0/4",
            # metadata of Azure and Alibaba; the others' are link-local
            "168.63.129.16/32",
            "100.100.100.200/32",
        ),
    )
)
_PRIVATE_6 = (IPv6Network("::1/128"), IPv6Network("fc00::/7"))
# metadata of AWS and Google inside fc00::/7; Teredo and 6to4, which carry an IPv4 address of the sender's choice;
# documentation, which not every Python knows of
_NEVER_6 = tuple(map(IPv6Network, ("fd00:ec2::254/128", "fd20:ce::254/128", "2001::/32", "2002::/16", "3fff::/20")))
_GLOBAL_6 = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")


def reach_of(address: str) -> Reach:
    """How far away this address is, as a resolver spells it (with a zone or without); NEVER for what is none."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return Reach.NEVER
    return _reach_4(parsed) if isinstance(parsed, IPv4Address) else _reach_6(parsed)


def refusal(address: str, *, plain: bool, allow_private: bool) -> str | None:
    """Why nothing may be sent to this address: `private_address`, `plain_http`; None when it may.

    `plain`: without TLS, which is for networks of one's own alone. `allow_private`: the operator's word that targets
    may be in them.
    """
    reach = reach_of(address)
    if reach is Reach.NEVER or (reach is Reach.PRIVATE and not allow_private):
        return "private_address"
    return "plain_http" if plain and reach is Reach.PUBLIC else None


def _reach_4(address: IPv4Address) -> Reach:
    if any(address in network for network in _NEVER_4):
        return Reach.NEVER
    if any(address in network for network in _PRIVATE_4):
        return Reach.PRIVATE
    return Reach.PUBLIC if address.is_global else Reach.NEVER


def _reach_6(address: IPv6Address) -> Reach:
    if address.ipv4_mapped is not None:
        return _reach_4(address.ipv4_mapped)
    if address in _NAT64:
        return _reach_4(IPv4Address(int(address) & 0xFFFF_FFFF))
    if any(address in network for network in _NEVER_6):
        return Reach.NEVER
    if any(address in network for network in _PRIVATE_6):
        return Reach.PRIVATE
    return Reach.PUBLIC if address in _GLOBAL_6 and address.is_global else Reach.NEVER

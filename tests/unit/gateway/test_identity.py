"""Who is asking: keys, accounts, and partitions that nobody else can reach."""

from __future__ import annotations

from dataclasses import replace

import pytest

from jobnimbus_mcp.errors import InvalidInput, NotAuthenticated, SettingsError
from jobnimbus_mcp.gateway.identity import Identities, Partitions

KEY, OTHER = "k" * 32, "o" * 32


def identities(*instances: str, **server_keys: str) -> Identities:
    return Identities(instances, server_keys, Partitions("s" * 16))


def test_the_callers_own_key_wins_over_the_servers() -> None:
    both = identities("stamford", stamford=OTHER)

    assert both.identify(KEY, None).credential == KEY
    assert both.identify(None, None).credential == OTHER


def test_without_any_key_the_caller_is_told_how_to_send_one() -> None:
    with pytest.raises(NotAuthenticated) as refused:
        identities("stamford").identify(None, None)
    assert refused.value.http_status == 401


@pytest.mark.parametrize("key", ["", "short", "k" * 257, "k" * 20 + " ", "k" * 20 + "é", "k" * 20 + "\n"])
def test_a_malformed_key_is_refused_without_being_repeated(key: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        identities("stamford", stamford=OTHER).identify(key, None)
    assert key.strip() == "" or key not in str(refused.value)


def test_an_account_may_be_left_out_only_when_there_is_one() -> None:
    assert identities("stamford").identify(KEY, None).instance == "stamford"
    with pytest.raises(InvalidInput):
        identities("stamford", "guilford").identify(KEY, None)
    with pytest.raises(InvalidInput):
        identities("stamford").identify(KEY, "guilford")


def test_partitions_differ_by_key_by_account_and_by_secret() -> None:
    made = {
        Partitions("s" * 16).of("stamford", KEY),
        Partitions("s" * 16).of("stamford", OTHER),
        Partitions("s" * 16).of("guilford", KEY),
        Partitions("t" * 16).of("stamford", KEY),
        Partitions(None).of("stamford", KEY),
    }

    assert len(made) == 5
    assert all(len(partition) == 32 for partition in made)


def test_keys_declared_to_share_a_profile_share_a_partition_of_one_account() -> None:
    plain = Partitions("s" * 16)
    group = f"{plain.digest('stamford', KEY)}+{plain.digest('stamford', OTHER)}"
    shared = Partitions("s" * 16, [group])

    assert shared.of("stamford", KEY) == shared.of("stamford", OTHER)
    assert shared.of("guilford", KEY) != shared.of("guilford", OTHER)


def test_a_shared_partition_is_nobodys_own_and_every_caller_keeps_a_digest_of_its_own() -> None:
    plain = Partitions("s" * 16)
    own = [plain.digest("stamford", key) for key in (KEY, OTHER)]
    makings = [Partitions("s" * 16, ["+".join(group)]) for group in (own, own[::-1])]
    callers = [Identities(["stamford"], {}, made).identify(key, None) for made in makings for key in (KEY, OTHER)]

    assert [caller.bearer for caller in callers] == own * 2
    (partition,) = {caller.partition for caller in callers}
    assert partition not in own
    assert len(partition) == 32
    assert Identities(["stamford"], {"stamford": KEY}, makings[0]).server_caller("stamford") == replace(
        callers[0], own_key=False
    )


def test_a_partition_of_one_key_is_its_own_digest() -> None:
    caller = identities("stamford").identify(KEY, None)

    assert caller.bearer == caller.partition


def test_a_malformed_group_is_refused_at_start() -> None:
    with pytest.raises(SettingsError):
        Partitions(None, ["nonsense"])


def test_a_caller_never_shows_the_credential() -> None:
    assert KEY not in repr(identities("stamford").identify(KEY, None))

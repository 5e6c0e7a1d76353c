"""Deliveries over real HTTP on the loopback: what is sent, what comes of each answer, and where nothing is sent."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from typing import Any

import httpcore
import pytest
from relay_target import DROP, HANG, Answer, refusing_url, relay_target
from standardwebhooks.webhooks import WebhookVerificationError

from jobnimbus_mcp import __version__
from jobnimbus_mcp.clock import Clock, ManualClock, SystemClock
from jobnimbus_mcp.consumers.relay import Relay
from jobnimbus_mcp.consumers.relay_http import ANSWER_BYTES_MOST, RelayHttp, Resolve
from jobnimbus_mcp.consumers.relay_targets import RelayTarget
from jobnimbus_mcp.events.event import Event
from jobnimbus_mcp.events.ports import Attempt, Outcome

KEY = b"0123456789abcdef0123456789abcdef"
BODY = '{"jnid":"j1","type":"job","name":"Zoë"}'


def event(number: int = 1) -> Event:
    return Event(
        event_id=f"{number:032x}",
        instance="stamford",
        name="job.changed",
        entity="jobs",
        record_id=f"j{number}",
        action="unknown",
        tags=("jobs",),
        source="webhook",
        received_at=1_790_000_000.0,
        body=BODY,
    )


@asynccontextmanager
async def relaying(
    *urls: str, allow_private: bool = True, clock: Clock | None = None, **options: Any
) -> AsyncIterator[Sequence[Relay]]:
    targets = [RelayTarget(f"t{number}", url, KEY) for number, url in enumerate(urls, 1)]
    poster = RelayHttp(targets, allow_private=allow_private, **options)
    try:
        yield [Relay(target, poster, clock or SystemClock()) for target in targets]
    finally:
        await poster.aclose()


async def tried(relay: Relay, number: int = 1, request_id: str = "try-1") -> Outcome:
    async with asyncio.timeout(8.0):
        (outcome,) = await relay.act([event(number)], [request_id])
    return outcome


def names(**addresses: Sequence[str]) -> tuple[Resolve, list[str]]:
    """A resolver that knows these names (`_` for `.`), the addresses one after the other; and what it was asked."""
    asked: list[str] = []

    async def resolve(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        await asyncio.sleep(0)
        known = addresses[host.replace(".", "_")]
        return [known[min(asked.count(host), len(known)) - 1]]

    return resolve, asked


def always(*addresses: str) -> Resolve:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return addresses

    return resolve


class Diverted(httpcore.AsyncNetworkBackend):
    """Notes which address is connected to, and connects to a server here instead."""

    def __init__(self, port: int) -> None:
        self._network = httpcore.AnyIOBackend()
        self._port = port
        self.addresses: list[tuple[str, int]] = []

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the signature is the transport's
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        self.addresses.append((host, port))
        return await self._network.connect_tcp("127.0.0.1", self._port, timeout)


# -- the wire ---------------------------------------------------------------------------------------------------------


async def test_a_delivery_is_what_a_receiver_of_standard_webhooks_verifies() -> None:
    async with relay_target() as target, relaying(target.url("/hook/x?token=a%20b")) as (relay,):
        assert await tried(relay) == Outcome(status=200, answer="thanks")
    (received,) = target.received
    received.verify(KEY)
    assert (received.method, received.path) == ("POST", "/hook/x?token=a%20b")
    assert received.headers["webhook-id"] == event().event_id
    assert received.headers["x-request-id"] == "try-1"
    assert received.headers["user-agent"] == f"jobnimbus-mcp/{__version__}"
    assert received.headers["content-type"] == "application/json"
    assert received.headers["host"] == f"127.0.0.1:{target.port}"
    assert json.loads(received.body)["data"]["record"] == json.loads(BODY)
    with pytest.raises(WebhookVerificationError):
        received.verify(b"another key altogether, 32 bytes")


@pytest.mark.parametrize("path", ["/a;b/c;d?e=f;g", "/a;b", "/?x=1;y", "//double//?"])
async def test_a_path_is_asked_for_as_the_setting_spells_it(path: str) -> None:
    async with relay_target() as target, relaying(target.url(path)) as (relay,):
        assert (await tried(relay)).ok
    assert target.received[0].path == path.rstrip("?")


async def test_an_ipv6_target_is_named_with_its_brackets() -> None:
    async with relay_target(host="::1") as target, relaying(target.url(host="[::1]")) as (relay,):
        assert (await tried(relay)).ok
    assert target.received[0].headers["host"] == f"[::1]:{target.port}"


async def test_deliveries_share_a_connection_and_take_no_cookie_along() -> None:
    answer = Answer(headers=(("Set-Cookie", "who=me; Path=/"),))
    async with relay_target([answer, answer]) as target, relaying(target.url()) as (relay,):
        for number in (1, 2, 3):
            assert (await tried(relay, number)).ok
    assert target.connections == 1
    assert not any("cookie" in received.headers for received in target.received)


async def test_a_proxy_of_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, refusing_url().removesuffix("/hook"))
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    async with relay_target() as target, relaying(target.url()) as (relay,):
        assert (await tried(relay)).ok


# -- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (Answer(204, b""), Outcome(status=204)),
        (Answer(404, b"gone"), Outcome("http_404", False, 404, "gone")),
        (Answer(429, b"slow down"), Outcome("http_429", True, 429, "slow down")),
        (Answer(503, b"later"), Outcome("http_503", True, 503, "later")),
        (HANG, Outcome("timeout")),
        (DROP, Outcome("no_answer")),
        (Answer(200, b"half", cut=True), Outcome(status=200, answer="half")),
        (Answer(500, b"half", cut=True), Outcome("http_500", True, 500, "half")),
    ],
    ids=["204", "404", "429", "503", "hang", "drop", "200 cut", "500 cut"],
)
async def test_what_becomes_of_each_answer(answer: Answer, outcome: Outcome) -> None:
    async with relay_target([answer]) as target, relaying(target.url(), within_s=0.3) as (relay,):
        assert await tried(relay) == outcome
        assert len(target.received) == 1
        assert (await tried(relay, 2)).ok


async def test_a_target_that_refuses_connections_is_tried_again() -> None:
    async with relaying(refusing_url()) as (relay,):
        assert await tried(relay) == Outcome("unreachable")


async def test_what_is_no_http_is_no_answer() -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"220 smtp.example.org ready\r\n")
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with relaying(f"http://127.0.0.1:{port}/") as (relay,):
            assert await tried(relay) == Outcome("no_answer")


async def test_a_large_answer_is_read_to_its_bound_and_no_further() -> None:
    large = Answer(500, b"x" * (4 * ANSWER_BYTES_MOST))
    async with relay_target([large, large]) as target, relaying(target.url()) as (relay,):
        for number in (1, 2):
            assert await tried(relay, number) == Outcome("http_500", True, 500, "x" * 500)
        assert (await tried(relay, 3)).ok
    assert target.connections == 3


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed_wherever_it_leads(status: int) -> None:
    async with relay_target() as private:
        location = (("Location", private.url()),)
        async with relay_target([Answer(status, b"", location)]) as target, relaying(target.url()) as (relay,):
            assert await tried(relay) == Outcome("redirect", False, status)
        assert private.connections == 0


async def test_a_target_that_hangs_delays_no_other() -> None:
    async with AsyncExitStack() as stack:
        hanging = await stack.enter_async_context(relay_target([HANG] * 20))
        quick = await stack.enter_async_context(relay_target())
        stuck, relay = await stack.enter_async_context(relaying(hanging.url(), quick.url()))
        waiting = [asyncio.create_task(tried(stuck, number)) for number in range(8)]
        await hanging.arrived(8)
        for number in range(20):
            assert (await tried(relay, number)).ok
        assert not any(task.done() for task in waiting)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_delivery_that_is_given_up_frees_its_connection() -> None:
    async with relay_target([HANG] * 8) as target, relaying(target.url()) as (relay,):
        waiting = [asyncio.create_task(tried(relay, number)) for number in range(8)]
        await target.arrived(8)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert (await tried(relay, 9)).ok


# -- where nothing is sent --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "[::ffff:127.0.0.1]"])
async def test_without_leave_nothing_is_sent_to_a_private_address_however_it_is_spelled(host: str) -> None:
    async with relay_target() as target:
        url = f"https://{host}:{target.port}/hook"
        async with relaying(url, allow_private=False) as (relay,):
            assert await tried(relay) == Outcome("private_address", False)
    assert target.connections == 0


async def test_one_private_address_among_public_ones_is_refused() -> None:
    network = Diverted(1)
    options: dict[str, Any] = {"resolve": always("93.184.216.34", "10.0.0.5"), "network": network}
    async with relaying("https://hooks.example.com/x", allow_private=False, **options) as (relay,):
        assert await tried(relay) == Outcome("private_address", False)
    assert network.addresses == []


async def test_leave_for_private_addresses_is_none_for_cloud_metadata() -> None:
    network = Diverted(1)
    options: dict[str, Any] = {"resolve": always("169.254.169.254"), "network": network}
    async with relaying("http://metadata.example.com/x", **options) as (relay,):
        assert await tried(relay) == Outcome("private_address", False)
    assert network.addresses == []


async def test_plain_http_goes_to_no_public_address() -> None:
    network = Diverted(1)
    options: dict[str, Any] = {"resolve": always("93.184.216.34"), "network": network}
    async with relaying("http://n8n.example.com/x", **options) as (relay,):
        assert await tried(relay) == Outcome("plain_http", False)
    assert network.addresses == []


async def test_a_name_that_turns_private_after_the_check_is_not_asked_again(server_tls: ssl.SSLContext) -> None:
    resolve, asked = names(hooks_example_com=["93.184.216.34", "127.0.0.1"])
    async with relay_target(tls=server_tls) as target:
        network = Diverted(target.port)
        options: dict[str, Any] = {"resolve": resolve, "network": network, "tls": _trusting_anybody()}
        async with relaying("https://hooks.example.com/x", allow_private=False, **options) as (relay,):
            assert (await tried(relay)).ok
            assert asked == ["hooks.example.com"]
            assert network.addresses == [("93.184.216.34", 443)]
            target.answers.append(DROP)
            assert await tried(relay, 2) == Outcome("no_answer")
            # the next connection has the name's new address, which is checked as the first was
            assert await tried(relay, 3) == Outcome("private_address", False)
        assert len(network.addresses) == 1
    assert target.server_names == ["hooks.example.com"]
    assert target.received[0].headers["host"] == "hooks.example.com"


async def test_the_connection_goes_to_the_address_that_was_checked_and_to_no_other() -> None:
    resolve, asked = names(n8n_internal=["127.0.0.2", "127.0.0.1"])
    async with relay_target(host="127.0.0.2") as checked:
        url = f"http://n8n.internal:{checked.port}/x"
        async with relaying(url, resolve=resolve) as (relay,):
            assert (await tried(relay)).ok
    assert asked == ["n8n.internal"]
    assert checked.received[0].headers["host"] == f"n8n.internal:{checked.port}"


async def test_an_address_that_does_not_answer_is_passed_over_for_the_next() -> None:
    async with relay_target(host="127.0.0.3") as target:
        url = f"http://n8n.internal:{target.port}/x"
        async with relaying(url, resolve=always("127.0.0.2", "127.0.0.3")) as (relay,):
            assert (await tried(relay)).ok


# -- names ------------------------------------------------------------------------------------------------------------


async def _nobody(host: str, port: int) -> Sequence[str]:
    raise socket.gaierror(socket.EAI_NONAME, "unknown")


@pytest.mark.parametrize("resolve", [_nobody, always()], ids=["unknown", "empty"])
async def test_a_name_without_an_address_is_tried_again(resolve: Resolve) -> None:
    async with relaying("https://gone.example.com/x", resolve=resolve) as (relay,):
        assert await tried(relay) == Outcome("unresolved")


async def test_a_name_that_no_name_server_could_know_has_no_address() -> None:
    async with relaying(f"https://{'a' * 70}.example/x") as (relay,):
        assert await tried(relay) == Outcome("unresolved")


async def test_a_silent_name_server_holds_one_thread_and_only_its_own_target(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    silent, asked, real = threading.Event(), [], socket.getaddrinfo

    def lookup(host: Any, *arguments: Any, **options: Any) -> Any:
        if host == "silent.example.com":
            asked.append(threading.current_thread())
            silent.wait(5.0)
        return real("127.0.0.1" if host == "silent.example.com" else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    async with relay_target() as target:
        url = f"http://silent.example.com:{target.port}/x"
        async with relaying(url, target.url(host="localhost"), within_s=0.2) as (stuck, relay):
            waiting = [asyncio.create_task(tried(stuck, number)) for number in range(8)]
            assert (await tried(relay)).ok
            assert {outcome.error for outcome in await asyncio.gather(*waiting)} == {"timeout"}
            assert await tried(stuck, 9) == Outcome("timeout")
            assert len(asked) == 1
            silent.set()
            asked[0].join(5.0)
            assert (await tried(stuck, 10)).ok


# -- TLS --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def server_tls(certificates: Any) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.certificate, certificates.key)
    return context


async def test_the_certificate_must_be_the_name_s_not_the_address_s(
    certificates: Any, server_tls: ssl.SSLContext
) -> None:
    trusting = ssl.create_default_context(cafile=str(certificates.authority))
    async with relay_target(tls=server_tls, host="127.0.0.2") as target:
        urls = (target.url(host="localhost"), target.url(host="n8n.internal"))
        async with relaying(*urls, tls=trusting, resolve=always("127.0.0.2")) as (named, other):
            assert (await tried(named)).ok
            assert await tried(other) == Outcome("tls")
    assert target.server_names == ["localhost", "n8n.internal"]
    assert len(target.received) == 1


async def test_a_certificate_that_nobody_vouches_for_gets_no_event(server_tls: ssl.SSLContext) -> None:
    async with relay_target(tls=server_tls) as target, relaying(target.url(host="localhost")) as (relay,):
        assert await tried(relay) == Outcome("tls")
    assert target.received == []


async def test_a_target_that_wants_a_certificate_of_ours_gets_no_event(
    certificates: Any, server_tls: ssl.SSLContext
) -> None:
    server_tls.verify_mode = ssl.CERT_REQUIRED
    server_tls.load_verify_locations(certificates.authority)
    trusting = ssl.create_default_context(cafile=str(certificates.authority))
    async with relay_target(tls=server_tls) as target, relaying(target.url(host="localhost"), tls=trusting) as (relay,):
        # it says so after the handshake: whether its alert or the end of the connection is seen first is chance
        assert await tried(relay) in (Outcome("tls"), Outcome("no_answer"))
    assert target.received == []


class Alerting(httpcore.AsyncNetworkBackend, httpcore.AsyncNetworkStream):
    """A connection that takes everything, and then has an alert of TLS instead of an answer."""

    async def connect_tcp(self, *_arguments: Any, **_options: Any) -> httpcore.AsyncNetworkStream:
        return self

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - as above
        pass

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - as above
        raise ssl.SSLError(1, "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED]")

    async def aclose(self) -> None:
        pass


async def test_an_alert_after_the_handshake_is_a_failure_of_tls() -> None:
    async with relaying("http://127.0.0.1/x", network=Alerting()) as (relay,):
        assert await tried(relay) == Outcome("tls")


def _trusting_anybody() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


# -- over several tries -----------------------------------------------------------------------------------------------


async def _until_settled(relay: Relay, clock: ManualClock, pauses: Sequence[float]) -> tuple[str, list[Attempt]]:
    """(what became of it, its tries): as whoever runs consumers tries again."""
    attempts: list[Attempt] = []
    for pause in (*pauses, None):
        request_id = f"try-{clock.now():.0f}"
        at = clock.now()
        outcome = await tried(relay, request_id=request_id)
        attempts.append(Attempt(at, request_id, 0.0, outcome.status, outcome.error, outcome.answer))
        if outcome.ok:
            return "done", attempts
        if pause is None or not outcome.retry:
            break
        clock.advance(pause)
    return "dead", attempts


async def test_a_target_that_answers_500_five_times_gets_the_event_after_a_replay() -> None:
    clock = ManualClock()
    answers = [Answer(500, f"broken {number}".encode()) for number in range(1, 6)]
    async with relay_target(answers) as target, relaying(target.url(), clock=clock) as (relay,):
        fate, before = await _until_settled(relay, clock, (2.0, 4.0, 8.0))
        assert fate == "dead"
        assert [attempt.answer for attempt in before] == ["broken 1", "broken 2", "broken 3", "broken 4"]
        clock.advance(60.0)
        fate, after = await _until_settled(relay, clock, (2.0, 4.0, 8.0))
        assert fate == "done"
    assert [(attempt.status, attempt.error) for attempt in (*before, *after)] == [(500, "http_500")] * 5 + [(200, "")]
    assert [received.headers["x-request-id"] for received in target.received] == [
        attempt.request_id for attempt in (*before, *after)
    ]
    assert {received.headers["webhook-id"] for received in target.received} == {event().event_id}
    stamps = [int(received.headers["webhook-timestamp"]) for received in target.received]
    assert [later - earlier for earlier, later in pairwise(stamps)] == [2, 4, 8, 60, 2]
    assert len({received.headers["webhook-signature"] for received in target.received}) == 6


async def test_a_refusal_that_time_does_not_heal_is_given_up_at_once() -> None:
    clock = ManualClock()
    async with relay_target([403]) as target, relaying(target.url(), clock=clock) as (relay,):
        fate, attempts = await _until_settled(relay, clock, (2.0, 4.0, 8.0))
    assert (fate, len(attempts), len(target.received)) == ("dead", 1, 1)

"""Files: uploads in three steps or one, downloads from JobNimbus or from where it points."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from upstream_world import Answer, World, in_turn, json

from jobnimbus_mcp.crm.entities import Entity
from jobnimbus_mcp.crm.files import FileContent, FileLink
from jobnimbus_mcp.crm.writes import Link, Upload
from jobnimbus_mcp.errors import (
    BudgetExhausted,
    FeatureDisabled,
    InvalidInput,
    UpstreamError,
    UpstreamForbidden,
    UpstreamNotFound,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamServerError,
    UpstreamTimeout,
    UpstreamUnauthorized,
    UpstreamUnreachable,
    UpstreamUnreadable,
)
from jobnimbus_mcp.resilience.breaker import State
from jobnimbus_mcp.upstream.files import BASE64_BYTES_MAX
from jobnimbus_mcp.upstream.ports import RawAnswer
from jobnimbus_mcp.upstream.request import Base, Request

LINKS = (Link("j1", Entity.JOBS),)
PLACE = "https://bucket.s3.amazonaws.com/x?sig=1"
STARTED = json({"data": {"url": PLACE, "jnid": "f1"}})
COMPLETED = json({"data": {"jnid": "f1", "thumbnailUrl": "https://files.example/t?sig=2"}})
STORED = RawAnswer(200, {}, b"")
WEB_PAGE = RawAnswer(200, {"content-type": "text/html"}, b"<html>")
LARGE = b"x" * (BASE64_BYTES_MAX + 1)

START, PUT, COMPLETE = "/files/v1/uploads/url", "(place)", "/files/v1/uploads/f1/complete"


def file(content: bytes | None = b"jpg", source_url: str | None = None) -> Upload:
    return Upload("roof.jpg", "image/jpeg", 2, LINKS, content=content, source_url=source_url)


def steps(**answers: Answer | Callable[[], Answer]) -> Callable[[Request], Answer]:
    """A JobNimbus that answers each step of an upload as usual, save those given."""
    usual: dict[str, Answer] = {"start": STARTED, "put": STORED, "complete": COMPLETED, "files": json({"jnid": "f2"})}
    names = {START: "start", COMPLETE: "complete", "": "put", "/files": "files", "/files/fromUrl": "from_url"}

    def answer(request: Request) -> Answer:
        found = answers.get(names[request.path], usual.get(names[request.path]))
        assert found is not None
        return found() if callable(found) else found

    return answer


def asked(world: World) -> list[str]:
    return [request.path or PUT for request in world.sender.sent]


# ---- uploads


async def test_a_file_is_begun_filled_and_completed() -> None:
    world = World(steps())
    assert await world.upload(file()) == {"jnid": "f1"}
    assert asked(world) == [START, PUT, COMPLETE]
    assert [request.base for request in world.sender.sent] == [Base.UPLOAD, Base.ABSOLUTE, Base.UPLOAD]
    assert (world.sender.sent[1].url, world.sender.sent[1].body) == (PLACE, b"jpg")
    assert world.calls == {("stamford", Entity.ATTACHMENTS): 3}


@pytest.mark.parametrize(
    "away",
    [json({}, 404), json({}, 405), UpstreamUnreachable("u").unsent(), UpstreamUnreachable("u"), UpstreamTimeout("t")],
)
async def test_a_small_file_goes_the_older_way_when_the_upload_service_is_not_there(away: Answer) -> None:
    world = World(steps(start=away, files=json({"jnid": "f2", "related": [{"id": "j1"}]})))
    assert await world.upload(file()) == {"jnid": "f2", "related": [{"id": "j1"}]}
    assert asked(world) == [START, "/files"]
    body = orjson.loads(world.sender.sent[1].body or b"")
    assert (base64.b64decode(body["data"]), body["related"], body["type"]) == (b"jpg", ["j1"], 2)


@pytest.mark.parametrize(
    ("away", "kind", "tries"),
    [
        (json({}, 404), UpstreamRejected, 1),
        (json({}, 405), UpstreamRejected, 1),
        (UpstreamUnreachable("u").unsent(), UpstreamUnreachable, 4),
        (UpstreamUnreachable("u"), UpstreamUnreachable, 1),
    ],
)
async def test_a_large_file_needs_the_upload_service(away: Answer, kind: type[UpstreamError], tries: int) -> None:
    world = World(steps(start=away))
    assert await world.outcome(world.upload(file(LARGE))) is kind
    assert asked(world) == [START] * tries


async def test_a_file_of_just_the_size_goes_the_older_way() -> None:
    world = World(steps(start=json({}, 404)))
    assert await world.upload(file(b"x" * BASE64_BYTES_MAX)) == {"jnid": "f2"}


@pytest.mark.parametrize(
    ("refused", "kind"),
    [
        (json({}, 400), UpstreamRejected),
        (json({}, 401), UpstreamUnauthorized),
        (json({}, 403), UpstreamForbidden),
        (json({}, 500), UpstreamServerError),
        (WEB_PAGE, UpstreamUnreadable),
        (json({"data": {"jnid": "f1"}}), UpstreamUnreadable),
        (json({"data": {"url": PLACE, "jnid": "../f1"}}), UpstreamUnreadable),
        (json([]), UpstreamUnreadable),
    ],
)
async def test_an_upload_that_is_refused_at_its_start_ends_there(refused: Answer, kind: type[UpstreamError]) -> None:
    world = World(steps(start=refused))
    assert await world.outcome(world.upload(file())) is kind
    assert asked(world) == [START]


async def test_an_upload_service_that_is_too_busy_is_asked_again() -> None:
    world = World(steps(start=in_turn_of(json({}, 429), STARTED)))
    assert await world.run(world.upload(file())) == {"jnid": "f1"}
    assert asked(world) == [START, START, PUT, COMPLETE]


@pytest.mark.parametrize(
    "failure",
    [RawAnswer(500, {}, b""), RawAnswer(503, {}, b"SlowDown"), UpstreamTimeout("t"), UpstreamUnreachable("u")],
)
async def test_the_bytes_are_put_again_after_any_failure_because_their_place_is_the_same(failure: Answer) -> None:
    world = World(steps(put=in_turn_of(failure, STORED)))
    assert await world.run(world.upload(file())) == {"jnid": "f1"}
    assert asked(world) == [START, PUT, PUT, COMPLETE]


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404])
async def test_a_place_that_does_not_take_the_bytes_ends_the_upload_and_says_nothing_of_the_key(status: int) -> None:
    world = World(steps(put=RawAnswer(status, {"location": "https://x.example"}, b"<Key>bucket/secret</Key>")))
    with pytest.raises(UpstreamRejected) as caught:
        await world.run(world.upload(file()))
    assert "secret" not in caught.value.public_message + caught.value.said
    assert asked(world) == [START, PUT]


@pytest.mark.parametrize(
    "failure",
    [
        json({}, 500),
        UpstreamTimeout("t"),
        UpstreamUnreachable("u"),
        WEB_PAGE,
        json({}, 400),
        json({}, 401),
        json({}, 404),
    ],
)
async def test_an_upload_is_completed_once_and_may_show_though_that_failed(failure: Answer) -> None:
    world = World(steps(complete=failure))
    with pytest.raises(UpstreamUnreadable, match="has the file's bytes") as caught:
        await world.run(world.upload(file()))
    assert caught.value.sent
    assert asked(world) == [START, PUT, COMPLETE]


@pytest.mark.parametrize("failure", [UpstreamUnreachable("u").unsent(), json({}, 429)])
async def test_a_completion_that_was_surely_not_carried_out_is_sent_again(failure: Answer) -> None:
    world = World(steps(complete=in_turn_of(failure, COMPLETED)))
    assert await world.run(world.upload(file())) == {"jnid": "f1"}
    assert asked(world) == [START, PUT, COMPLETE, COMPLETE]


async def test_an_upload_whose_bytes_are_stored_may_show_though_no_request_was_left_for_its_end() -> None:
    world = World(steps(), rate=1)
    usual = world.sender.answer
    others: list[asyncio.Future[Any]] = []

    async def crowded(request: Request) -> Answer:
        if not request.path:
            others.extend(asyncio.ensure_future(world.load()) for _ in range(6))
            await world.settle()
        answer = usual(request)
        assert isinstance(answer, RawAnswer)
        return answer

    world.sender.answer = crowded
    with pytest.raises(UpstreamUnreadable) as caught:
        await world.run(world.upload(file()))
    assert isinstance(caught.value.__cause__, BudgetExhausted)
    assert caught.value.sent
    assert asked(world) == [START, PUT]
    for other in others:
        other.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def test_an_upload_throttled_at_its_end_until_the_deadline_may_have_been_stored() -> None:
    world = World(steps(complete=json({}, 429)), max_concurrent=1)
    upload = asyncio.ensure_future(world.upload(file()))
    await world.settle()
    assert asked(world) == [START, PUT, COMPLETE]

    async def never(_: Request) -> Answer:
        await asyncio.Event().wait()
        raise AssertionError

    world.sender.answer = never
    holder = asyncio.ensure_future(world.load(within_s=100))
    await world.settle()
    with pytest.raises(UpstreamTimeout) as caught:
        await world.run(_end_of(upload))
    assert caught.value.sent
    holder.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holder


async def test_bytes_that_may_have_gone_out_once_may_be_stored_though_the_last_try_never_began() -> None:
    world = World(steps(put=in_turn_of(UpstreamTimeout("t"), UpstreamUnreachable("u").unsent())))
    with pytest.raises(UpstreamUnreachable) as caught:
        await world.run(world.upload(file()))
    assert caught.value.sent


async def test_a_completion_is_believed_without_a_body() -> None:
    assert await World(steps(complete=RawAnswer(204, {}, b""))).upload(file()) == {"jnid": "f1"}


@pytest.mark.parametrize("answered", [{"id": "f3"}, {"jnid": "f3"}, {"data": {"jnid": "f3"}}])
async def test_a_file_that_jobnimbus_fetches_itself_is_known_by_its_id(answered: dict[str, object]) -> None:
    world = World(steps(from_url=json(answered)))
    assert await world.upload(file(None, "https://x.example/r.jpg")) == {"jnid": "f3"}
    assert asked(world) == ["/files/fromUrl"]


@pytest.mark.parametrize("answer", [json({}), json({"id": 7}), json([]), WEB_PAGE])
async def test_a_stored_file_without_an_id_is_unreadable(answer: Answer) -> None:
    world = World(steps(from_url=answer, start=json({}, 404), files=answer))
    for upload in (file(None, "https://x.example/r.jpg"), file()):
        assert await world.outcome(world.upload(upload)) is UpstreamUnreadable


async def test_a_file_is_given_in_one_way() -> None:
    world = World(steps())
    for upload in (file(None), file(b"x", "https://x.example/r.jpg")):
        assert await world.outcome(world.upload(upload)) is InvalidInput
    assert world.sender.sent == []


async def test_a_host_that_is_not_trusted_ends_the_upload_and_counts_for_nothing() -> None:
    world = World(steps(put=FeatureDisabled("host", code="file_host_refused")))
    for _ in range(25):
        assert await world.outcome(world.upload(file())) is FeatureDisabled
    assert asked(world) == [START, PUT] * 25
    assert world.breakers["stamford"].state is State.CLOSED
    refused = (("entity", "attachments"), ("outcome", "file_host_refused"))
    assert world.recorder.counts["upstream_calls", refused] == 25


@pytest.mark.parametrize(("refusing", "at_once"), [("put", 4), ("start", 2)])
async def test_only_jobnimbus_itself_can_refuse_a_key(refusing: str, at_once: int) -> None:
    """A key that is not accepted has half of the slots."""
    world = World(steps(**{refusing: json({}, 401)}), max_concurrent=4)
    await world.outcome(world.upload(file()))

    async def never(_: Request) -> Answer:
        await asyncio.Event().wait()
        raise AssertionError

    world.sender.answer = never
    loads = [asyncio.ensure_future(world.load()) for _ in range(6)]
    await world.settle()
    assert world.sender.under_way == at_once
    for load in loads:
        load.cancel()
    await asyncio.gather(*loads, return_exceptions=True)


async def test_storage_that_fails_does_not_open_the_breaker_of_the_api() -> None:
    world = World(steps(put=RawAnswer(500, {}, b"")), random01=0.0)
    for _ in range(5):  # so that the uploads begun well would not make up for those that end badly
        world.breakers["stamford"].failed()
    for _ in range(25):
        assert await world.outcome(world.upload(file())) is UpstreamServerError
    assert world.breakers["stamford"].state is State.CLOSED


async def test_bytes_may_take_all_the_time_of_their_call() -> None:
    world = World(steps())
    await world.upload(file(), within_s=300)
    assert world.sender.timeouts == [10, 300, 10]


async def test_an_upload_cut_off_while_its_bytes_go_may_have_been_stored() -> None:
    world = World(steps())
    usual = world.sender.answer

    async def stuck(request: Request) -> Answer:
        if not request.path:
            await asyncio.Event().wait()
        answer = usual(request)
        assert isinstance(answer, RawAnswer)
        return answer

    world.sender.answer = stuck
    with pytest.raises(UpstreamTimeout) as caught:
        await world.run(world.upload(file()))
    assert caught.value.sent
    assert world.sender.under_way == 0


# ---- downloads

CDN = "https://files.example/roof.jpg?Signature=1"
POINTED = RawAnswer(302, {"location": CDN}, b"")
BYTES = RawAnswer(200, {"content-type": "Image/JPEG; q=1"}, b"jpg")


async def test_bytes_that_jobnimbus_gives_are_the_content() -> None:
    world = World(lambda _: BYTES)
    assert await world.content("f1", max_bytes=3) == FileContent(b"jpg", "image/jpeg")
    assert world.sender.sent == [Request("/files/f1", bytes_max=3, slow=True)]


async def test_a_redirect_is_followed_once() -> None:
    world = World(in_turn(POINTED, RawAnswer(200, {}, b"%PDF")))
    assert await world.content("file-f1", max_bytes=9) == FileContent(b"%PDF", "application/octet-stream")
    assert world.sender.sent == [
        Request("/files/f1", bytes_max=9, slow=True),
        Request("", base=Base.ABSOLUTE, url=CDN, bytes_max=9, slow=True),
    ]


@pytest.mark.parametrize("status", [302, 400, 401, 403, 404])
async def test_a_place_that_does_not_give_the_file_is_no_word_on_the_key_or_the_record(status: int) -> None:
    world = World(in_turn(POINTED, RawAnswer(status, {"location": "https://x.example/"}, b"secret")))
    with pytest.raises(UpstreamRejected) as caught:
        await world.run(world.content("f1"))
    assert str(status) in caught.value.public_message
    assert "secret" not in caught.value.public_message + caught.value.said
    assert len(world.sender.sent) == 2


async def test_a_place_that_fails_is_asked_again() -> None:
    world = World(in_turn(POINTED, RawAnswer(503, {}, b""), BYTES))
    assert await world.run(world.content("f1")) == FileContent(b"jpg", "image/jpeg")


@pytest.mark.parametrize("answers", [[RawAnswer(200, {}, b"", 7)], [POINTED, RawAnswer(200, {}, b"", 7)]])
async def test_a_file_larger_than_wanted_is_refused_with_both_sizes(answers: list[Answer]) -> None:
    world = World(in_turn(*answers))
    with pytest.raises(InvalidInput, match=r"7 bytes.* 5 can") as caught:
        await world.content("f1", max_bytes=5)
    assert caught.value.field == "max_bytes"
    assert len(world.sender.sent) == len(answers)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (WEB_PAGE, UpstreamUnreadable),
        (RawAnswer(404, {}, b"Not Found"), UpstreamNotFound),
        (json({}, 401), UpstreamUnauthorized),
        (json({}, 403), UpstreamForbidden),
        (RawAnswer(302, {}, b""), UpstreamUnreadable),
        (json({}, 429), UpstreamRateLimited),
        (json({}, 500), UpstreamServerError),
        (FeatureDisabled("host"), FeatureDisabled),
    ],
)
async def test_each_failure_of_a_download_has_its_error(answer: Answer, kind: type[Exception]) -> None:
    world = World(lambda _: answer)
    assert await world.outcome(world.content("f1")) is kind
    assert await world.outcome(world.link("f1")) is (kind if answer is not WEB_PAGE else None)


async def test_a_web_page_that_was_stored_as_a_file_is_the_content() -> None:
    world = World(in_turn(POINTED, WEB_PAGE))
    assert await world.content("f1") == FileContent(b"<html>", "text/html")


async def test_a_link_is_where_jobnimbus_points_and_nothing_is_fetched() -> None:
    pointed = World(lambda _: POINTED)
    assert await pointed.link("f1") == FileLink(CDN)
    assert pointed.sender.sent == [Request("/files/f1", bytes_max=0, slow=True)]
    assert "Signature" not in repr(FileLink(CDN))
    assert await World(lambda _: RawAnswer(200, {}, b"", 7)).link("f1") == FileLink(None)


async def test_what_is_no_id_is_not_asked_for() -> None:
    world = World(lambda _: BYTES)
    assert await world.outcome(world.content("../jobs")) is InvalidInput
    assert await world.outcome(world.link("a b")) is InvalidInput
    assert world.sender.sent == []


async def _end_of(task: asyncio.Future[Any]) -> Any:
    return await task


def in_turn_of(*answers: Answer) -> Callable[[], Answer]:
    next_answer = in_turn(*answers)
    return lambda: next_answer(Request(""))

"""Files through a real MCP client: stored, listed, read back, linked to, refused and deleted."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import pytest
from tool_cases import Json, Place

both_eras = pytest.mark.parametrize("agent", ["legacy", "2026-07-28"], indirect=True)
NOTE = "Ladder at the back. Größe: 3 m"
PIXELS = bytes(range(256)) * 8


async def stored(world: Any, agent: Any, **given: Any) -> Json:
    """The answer to an upload."""
    told: Json = (await world.within(agent.ask("create_attachment", **given))).data
    assert told["done"] == "created"
    return told


async def content(agent: Any, jnid: str, **how: Any) -> Json:
    told: Json = (await agent.ask("get_attachment_content", attachment_id=jnid, **how)).data
    return told


@both_eras
async def test_a_text_is_stored_listed_read_back_and_deleted(world: Any, agent: Any) -> None:
    place = Place(world)
    under = {"job_id": place.job}
    before = (await agent.ask("get_attachments", **under)).data["count"]
    told = await stored(world, agent, **under, filename="note.txt", text=NOTE, description="For the crew")
    jnid = told["jnid"]

    record = place.now("files", jnid)
    assert record is not None
    assert (record["filename"], record["content_type"]) == ("note.txt", "text/plain")
    assert (record["size"], record["description"]) == (len(NOTE.encode()), "For the crew")
    assert place.job in {link["id"] for link in record["related"]}
    listed = await agent.ask("get_attachments", **under)
    assert (listed.ids[0], listed.data["count"]) == (jnid, before + 1)
    assert await content(agent, jnid) == {
        "filename": "note.txt",
        "content_type": "text/plain",
        "size_bytes": len(NOTE.encode()),
        "text": NOTE,
    }

    world.clock.advance(3)
    gone = (await agent.ask("delete_attachment", attachment_id=jnid, confirm=True)).data
    assert (gone["done"], gone["jnid"]) == ("deleted", jnid)
    assert place.now("files", jnid) is None
    listed = await agent.ask("get_attachments", **under)
    assert jnid not in listed.ids
    assert listed.data["count"] == before
    assert "[not_found, " in await agent.refused("get_attachment_content", attachment_id=jnid)


async def test_bytes_come_back_as_they_were_and_a_photo_as_a_link_without_a_key(world: Any, agent: Any) -> None:
    place = Place(world)
    sent = base64.b64encode(PIXELS).decode()
    told = await stored(world, agent, contact_id=place.contact, filename="roof.jpg", content_base64=sent)
    record = place.now("files", told["jnid"])
    assert record is not None
    assert (record["content_type"], record["size"]) == ("image/jpeg", len(PIXELS))

    back = await content(agent, told["jnid"], format="base64")
    assert base64.b64decode(back["content_base64"]) == PIXELS
    assert (back["size_bytes"], "url" in back) == (len(PIXELS), False)
    shown = await content(agent, told["jnid"])
    assert set(shown) == {"filename", "content_type", "size_bytes", "url"}
    assert world.sim.keys["stamford"][0] not in shown["url"]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(world.sim.app)) as anybody:
        assert (await anybody.get(shown["url"])).content == PIXELS
    plain = await agent.refused("get_attachment_content", attachment_id=place.text_file(), format="link")
    assert "JobNimbus has no link for this file" in plain


async def test_a_file_that_jobnimbus_fetches_itself_is_stored_with_its_link(world: Any, agent: Any) -> None:
    place = Place(world)
    url = "https://photos.example.com/2026/gutter.png"
    told = await stored(world, agent, related_to=place.job, filename="gutter.png", source_url=url, file_type="photo")
    record = place.now("files", told["jnid"])
    assert record is not None
    assert (record["filename"], record["record_type_name"]) == ("gutter.png", "Photo")
    assert place.job in {link["id"] for link in record["related"]}
    for wrong in ("http://photos.example.com/a.png", "file:///etc/passwd"):
        text = await agent.refused("create_attachment", job_id=place.job, filename="a.png", source_url=wrong)
        assert "(argument: source_url) [invalid_argument, " in text


async def test_more_than_a_model_reads_is_refused_with_the_size(world: Any, agent: Any) -> None:
    place = Place(world)
    told = await stored(world, agent, job_id=place.job, filename="long.txt", text="x" * 20_000)
    text = await agent.refused("get_attachment_content", attachment_id=told["jnid"])
    assert "The file has at least 16385 bytes" in text or "20000 bytes" in text
    assert "(argument: max_bytes) [invalid_argument, " in text
    whole = await content(agent, told["jnid"], max_bytes=20_000)
    assert whole["text"] == "x" * 20_000
    text = await agent.refused("get_attachment_content", attachment_id=told["jnid"], max_bytes=1_048_577)
    assert "(argument: max_bytes) [invalid_argument, " in text


async def test_a_file_that_would_belong_to_nothing_is_not_stored(world: Any, agent: Any) -> None:
    place, before = Place(world), world.ids("files")
    for given, argument in (
        ({"filename": "a.txt", "text": "a"}, "job_id"),
        ({"filename": "a.txt", "job_id": place.job}, "text"),
        ({"filename": "a.txt", "job_id": place.job, "text": "a", "content_base64": "YQ=="}, "text"),
        ({"filename": "a.txt", "job_id": place.job, "content_base64": "not base64!"}, "content_base64"),
        ({"filename": "../a.txt", "job_id": place.job, "text": "a"}, "filename"),
        ({"filename": "a.txt", "job_id": place.job, "text": "a", "file_type": "Hologram"}, "file_type"),
    ):
        text = await agent.refused("create_attachment", **given)
        assert f"(argument: {argument}) [invalid_argument, " in text, given
    nowhere = {"filename": "a.txt", "text": "a", "contact_id": "nosuchcontact00000000000"}
    text = await agent.refused("create_attachment", **nowhere)
    assert "(argument: contact_id) [invalid_argument, " in text or " [not_found, " in text
    assert world.ids("files") == before


@pytest.mark.parametrize("lost", [("POST", "/files/v1/uploads/"), ("PUT", "/cdn/"), ("POST", "/files/v1/uploads/url")])
async def test_a_step_of_an_upload_that_went_unanswered_leaves_one_file_at_most(
    world: Any, agent: Any, lost: tuple[str, str]
) -> None:
    """Whatever step it was, the same call with the same key ends with exactly one."""
    place, before = Place(world), world.ids("files")
    method, path = lost
    given = {"job_id": place.job, "filename": "once.txt", "text": NOTE, "idempotency_key": "one-upload"}
    await world.fault(status=504, after=True, times=1, method=method, path=path)
    first = await world.within(agent.result("create_attachment", **given))
    assert len(world.ids("files") - before) <= 1
    assert not first.is_error or "[write_outcome_unknown, " in first.content[0].text
    world.clock.advance(30)
    told = (await world.within(agent.ask("create_attachment", **given), 60)).data
    assert world.ids("files") - before == {told["jnid"]}


async def test_what_is_said_of_a_file_changes_and_its_content_does_not(world: Any, agent: Any) -> None:
    place = Place(world)
    jnid = place.text_file()
    told = (await agent.ask("update_attachment", attachment_id=jnid, description="Signed", is_private=True)).data
    assert told["done"] == "updated"
    assert told["changed"]["description"][1] == "Signed"
    record = place.now("files", jnid)
    assert record is not None
    assert (record["description"], record["is_private"]) == ("Signed", True)
    assert (await content(agent, jnid, format="text"))["text"] == f"simulated content of {jnid}\n"

"""Files on their way in, by the upload service or from elsewhere, and on their way out, by signed address."""

from __future__ import annotations

import hashlib
from typing import Any

import httpx
import pytest

from jobnimbus_mcp.clock import ManualClock
from jobnimbus_mcp.simulator import Simulator

PLANS = b"the plans, page after page"


def a(sim: Simulator, kind: str, **fields: Any) -> dict[str, Any]:
    rows = sim.account("stamford").records(kind)
    return next(row for row in rows if all(row[key] == value for key, value in fields.items()))


class Uploader:
    """Speaks to the upload service with the full-access key."""

    def __init__(self, web: httpx.AsyncClient, key: str) -> None:
        self.web = web
        self.headers = {"Authorization": f"bearer {key}"}

    async def post(self, path: str, body: Any = None) -> httpx.Response:
        return await self.web.post(f"/files/v1/uploads/{path}", json=body, headers=self.headers)

    async def start(self, **fields: Any) -> tuple[str, str]:
        """(jnid, address for the bytes)."""
        answer = await self.post("url", {"filename": "plans.pdf", "type": 1, "description": "d", **fields})
        assert answer.status_code == 200, answer.text
        data = answer.json()["data"]
        return data["jnid"], data["url"]


@pytest.fixture
def uploader(sim: Simulator, web: httpx.AsyncClient) -> Uploader:
    return Uploader(web, sim.keys["stamford"][0])


async def test_a_file_is_announced_sent_and_complete_and_only_then_seen(
    sim: Simulator, web: httpx.AsyncClient, api: httpx.AsyncClient, uploader: Uploader
) -> None:
    account, job = sim.account("stamford"), a(sim, "jobs")
    related = [job["primary"]["id"], job["jnid"]]
    jnid, url = await uploader.start(related=related, isPrivate=True)

    stored = await web.put(url, content=PLANS, headers={"content-type": "application/pdf"})
    early = await api.get(f"/files/{jnid}")
    finished = await uploader.post(f"{jnid}/complete?generateThumbnail=true")

    assert (stored.status_code, stored.headers["etag"]) == (
        200,
        f'"{hashlib.md5(PLANS, usedforsecurity=False).hexdigest()}"',
    )
    assert early.status_code == 404
    assert finished.json() == {"data": {"jnid": jnid, "thumbnailUrl": None}}
    record = account.list("files", {"size": "1"})[1][0]
    assert record["jnid"] == jnid
    assert [link["id"] for link in record["related"]] == [job["jnid"], job["primary"]["id"]]
    shown = ("filename", "content_type", "size", "md5", "description", "is_private", "record_type_name", "created_by")
    assert [record[key] for key in shown] == [
        "plans.pdf",
        "application/pdf",
        len(PLANS),
        hashlib.md5(PLANS, usedforsecurity=False).hexdigest(),
        "d",
        True,
        "Document",
        account.admin,
    ]
    assert (await api.get(f"/files/{jnid}")).content == PLANS
    assert (await uploader.post(f"{jnid}/complete")).json() == finished.json()
    assert account.list("files", {})[0] == sum(1 for _ in account.records("files"))


@pytest.mark.parametrize(
    ("content_type", "filename", "shown"),
    [
        ("application/octet-stream", "roof.jpg", "image/jpeg"),
        ("image/png", "roof.jpg", "image/png"),
        ("application/octet-stream", "noname", "application/octet-stream"),
    ],
)
async def test_the_type_of_a_file_is_what_was_sent_or_goes_by_its_name(
    sim: Simulator, web: httpx.AsyncClient, uploader: Uploader, content_type: str, filename: str, shown: str
) -> None:
    jnid, url = await uploader.start(filename=filename)
    await web.put(url, content=b"x", headers={"content-type": content_type})
    await uploader.post(f"{jnid}/complete")

    record = sim.account("stamford").get("files", jnid)
    assert record is not None
    assert record["content_type"] == shown


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("url", {"type": 1}, 400, "Missing required field(s): filename"),
        ("url", {"filename": "f", "type": "Photo"}, 400, "Valid FileTypeIds: 1, 2, 3"),
        ("url", {"filename": "f", "type": 99}, 400, "Valid FileTypeIds: 1, 2, 3"),
        ("url", {"filename": "f", "type": 1, "related": [{"id": "x"}]}, 500, "Attempt to relate to invalid document"),
        ("url", {"filename": "f", "type": 1, "related": ["x"]}, 500, "Attempt to relate to invalid document"),
        ("multi-urls", {"filename": "f", "type": 1}, 400, "Invalid partCount - None"),
        ("multi-urls", {"filename": "f", "type": 1, "partCount": 0}, 400, "Invalid partCount - 0"),
        ("multi-complete", {"jnid": "nosuch", "parts": []}, 400, "Missing required field(s): jnid, parts"),
        ("nosuch/complete", None, 404, "Not Found"),
        ("elsewhere", {}, 404, "Not Found"),
    ],
)
async def test_a_bad_upload_is_refused(uploader: Uploader, path: str, body: Any, status: int, message: str) -> None:
    answer = await uploader.post(path, body)

    assert answer.status_code == status
    assert message in answer.text


async def test_an_upload_without_bytes_is_not_complete(uploader: Uploader) -> None:
    jnid, _ = await uploader.start()

    answer = await uploader.post(f"{jnid}/complete")

    assert (answer.status_code, answer.text) == (400, "Nothing was uploaded as part 1")


async def test_the_upload_service_wants_a_key_and_a_post_and_its_calls_count(
    sim: Simulator, web: httpx.AsyncClient, uploader: Uploader
) -> None:
    jnid, url = await uploader.start()
    await web.put(url, content=b"x")
    without = await web.post("/files/v1/uploads/url", json={})
    got = await web.get("/files/v1/uploads/url", headers=uploader.headers)

    assert (without.status_code, got.status_code) == (401, 405)
    # Storage is no part of the API.
    assert sim.calls_by_path() == {"/files/v1/uploads/url": 3}
    assert jnid not in {row["jnid"] for row in sim.account("stamford").records("files")}


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ("authorization", 400, "Only one auth mechanism allowed"),
        ("signature", 403, "SignatureDoesNotMatch"),
        ("unsigned", 403, "SignatureDoesNotMatch"),
        ("expiry", 403, "SignatureDoesNotMatch"),
        ("part", 403, "SignatureDoesNotMatch"),
        ("method", 403, "SignatureDoesNotMatch"),
        ("late", 403, "Request has expired"),
    ],
)
async def test_an_address_for_bytes_is_good_as_it_is_for_15_minutes_and_without_a_key(
    sim_clock: ManualClock, web: httpx.AsyncClient, uploader: Uploader, change: str, status: int, message: str
) -> None:
    _, url = await uploader.start()
    address = httpx.URL(url)
    headers: dict[str, str] = {}
    method = "PUT"
    match change:
        case "authorization":
            headers = uploader.headers
        case "signature":
            address = address.copy_set_param("Signature", "0" * 64)
        case "unsigned":
            address = address.copy_with(query=None)
        case "expiry":
            address = address.copy_set_param("Expires", "1999999999")
        case "part":
            address = address.copy_with(path=f"{address.path[:-1]}2")
        case "method":
            method = "GET"
        case _:
            sim_clock.advance(901)

    answer = await web.request(method, address, content=b"x", headers=headers)

    assert (answer.status_code, answer.text) == (status, message)


async def test_an_address_for_bytes_is_good_until_its_last_second(
    sim_clock: ManualClock, web: httpx.AsyncClient, uploader: Uploader
) -> None:
    _, url = await uploader.start()
    sim_clock.advance(900)

    assert (await web.put(url, content=b"x")).status_code == 200


async def test_a_file_in_parts_is_one_file(sim: Simulator, web: httpx.AsyncClient, uploader: Uploader) -> None:
    job = a(sim, "jobs")
    body = {"filename": "plans.pdf", "type": 1, "related": [job["jnid"]], "partCount": 2, "fileSize": 5}
    data = (await uploader.post("multi-urls", body)).json()["data"]
    etags = {}
    for part, content in ((2, b"lo"), (1, b"hel")):
        etags[part] = (await web.put(data["urls"][part - 1]["url"], content=content)).headers["etag"]
    told = [{"partNumber": part, "eTag": etags[part]} for part in (1, 2)]

    wrong = await uploader.post("multi-complete", {"jnid": data["jnid"], "parts": [*reversed(told)]})
    right = await uploader.post("multi-complete", {"jnid": data["jnid"], "parts": told})

    assert [row["partNumber"] for row in data["urls"]] == [1, 2]
    assert (wrong.status_code, wrong.text.split(" ")[0]) == (400, "InvalidPart")
    assert right.json() == {"data": {"jnid": data["jnid"]}}
    record = sim.account("stamford").get("files", data["jnid"])
    assert record is not None
    assert (record["size"], record["related"][0]["id"]) == (5, job["jnid"])


async def test_a_picture_is_elsewhere_and_its_address_wants_no_key(
    sim: Simulator, sim_clock: ManualClock, web: httpx.AsyncClient, api: httpx.AsyncClient, uploader: Uploader
) -> None:
    photo = a(sim, "files", content_type="image/jpeg")
    moved = await api.get(f"/files/{photo['jnid']}")
    url = moved.headers["location"]

    with_key = await web.get(url, headers=uploader.headers)
    fetched = await web.get(url)
    forged = await web.get(httpx.URL(url).copy_set_param("Signature", "x"))
    sim_clock.advance(301)
    late = await web.get(url)

    assert (moved.status_code, moved.content, httpx.URL(url).host) == (302, b"", "sim")
    assert (fetched.status_code, fetched.headers["content-type"]) == (200, "image/jpeg")
    assert fetched.content.startswith(b"\xff\xd8")
    assert [answer.status_code for answer in (with_key, forged, late)] == [400, 403, 403]


async def test_a_file_that_was_deleted_is_not_on_the_cdn_either(
    sim: Simulator, web: httpx.AsyncClient, api: httpx.AsyncClient
) -> None:
    photo = a(sim, "files", content_type="image/jpeg")
    url = (await api.get(f"/files/{photo['jnid']}")).headers["location"]
    await api.delete(f"/files/{photo['jnid']}")

    assert (await web.get(url)).status_code == 404


async def test_a_thumbnail_is_made_of_a_picture_when_asked_for(web: httpx.AsyncClient, uploader: Uploader) -> None:
    jnid, url = await uploader.start(filename="roof.jpg", type=2)
    await web.put(url, content=b"\xff\xd8picture", headers={"content-type": "image/jpeg"})

    data = (await uploader.post(f"{jnid}/complete?generateThumbnail=true")).json()["data"]

    assert data["jnid"] == jnid
    assert (await web.get(data["thumbnailUrl"])).content == b"\xff\xd8picture"


async def test_a_file_can_be_fetched_by_the_service_and_its_type_be_a_name(
    sim: Simulator, api: httpx.AsyncClient
) -> None:
    job = a(sim, "jobs")
    body = {"related": [job["jnid"]], "type": "photo", "url": "https://example.com/a/roof.jpg?x=1", "description": "d"}

    made = (await api.post("/files/fromUrl", json=body)).json()

    record = sim.account("stamford").get("files", made["id"])
    assert record is not None
    assert list(made) == ["id"]
    shown = ("filename", "content_type", "record_type_name", "description")
    assert [record[key] for key in shown] == ["roof.jpg", "image/jpeg", "Photo", "d"]
    assert record["primary"]["id"] == job["jnid"]


async def test_a_file_is_filed_anew_by_put(sim: Simulator, api: httpx.AsyncClient) -> None:
    record, job = a(sim, "files", content_type="image/jpeg"), a(sim, "jobs", number="1100")
    path = f"/files/{record['jnid']}"

    named = (await api.put(path, json={"type": "Document", "description": "new"})).json()
    moved = (await api.put(path, json={"related": [job["jnid"]]})).json()
    by_primary = (await api.put(path, json={"primary": {"id": job["primary"]["id"], "type": "contact"}})).json()
    objects = await api.put(path, json={"related": [{"id": job["jnid"]}]})
    unknown = await api.put(path, json={"type": "Nope"})

    assert (named["record_type"], named["record_type_name"], named["description"]) == (1, "Document", "new")
    assert ([link["id"] for link in moved["related"]], moved["primary"]["id"]) == ([job["jnid"]], job["jnid"])
    assert by_primary["primary"]["id"] == job["primary"]["id"]
    assert (objects.status_code, objects.text) == (500, "Attempt to relate to invalid document")
    assert (unknown.status_code, unknown.text.split(".")[0]) == (400, "Invalid type - Nope")


async def test_reset_forgets_what_was_announced(sim: Simulator, web: httpx.AsyncClient, uploader: Uploader) -> None:
    jnid, url = await uploader.start()
    sim.reset()

    assert (await web.put(url, content=b"x")).status_code == 404
    assert (await uploader.post(f"{jnid}/complete")).status_code == 404

"""A write, from what is wanted to what JobNimbus has: once, seen through, told, and audited."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs
from writes_world import CALLER, SETTLE_S, AwayReceipts, World

from jobnimbus_mcp.crm.entities import Action, Entity
from jobnimbus_mcp.crm.query import AnyOf, Between, Is
from jobnimbus_mcp.crm.writes import Link, Upload, Write
from jobnimbus_mcp.errors import (
    BudgetExhausted,
    CacheUnavailable,
    DuplicateRecord,
    InternalError,
    InvalidInput,
    ProjectError,
    RecordNotFound,
    Stopping,
    UpstreamForbidden,
    UpstreamRateLimited,
    UpstreamUnauthorized,
    UpstreamUnreachable,
    WriteInProgress,
    WriteOutcomeUnknown,
    WriteRefused,
)
from jobnimbus_mcp.gateway.identity import Caller
from jobnimbus_mcp.gateway.orders import RecordOrder
from jobnimbus_mcp.gateway.receipts import New, Owner

JOB = Link("mjob1", Entity.JOBS)
NEW_TASK = Write(
    Entity.TASKS,
    Action.CREATED,
    fields={"title": "Call the adjuster", "date_start": 1_790_000_000, "record_type_name": "Call"},
    links=(JOB,),
)
NEW_JOB = Write(
    Entity.JOBS,
    Action.CREATED,
    fields={"name": "Okafor - Gutters", "record_type_name": "Roofing", "status_name": "Lead"},
    links=(Link("mctc1", Entity.CONTACTS),),
)
NEW_CONTACT = Write(
    Entity.CONTACTS,
    Action.CREATED,
    fields={
        "display_name": "Dana Whitfield",
        "record_type_name": "Customer",
        "status_name": "New",
        "sales_rep": "musr1",
    },
)
RENAMED = Write(Entity.JOBS, Action.UPDATED, "mjob1", fields={"name": "Whitfield - Roof", "description": "Hail"})
PRICED = Write(Entity.INVOICES, Action.UPDATED, "minv1", fields={"note": "Due on receipt"})
DELETED = Write(Entity.JOBS, Action.DELETED, "mjob1")
NEW_SOURCE = Write(Entity.SETTINGS, Action.CREATED, fields={"SourceName": "Door hanger"}, part="source")
PHOTO = Upload("roof.jpg", "image/jpeg", 2, (JOB,), description="After", content=b"12345")

UNANSWERED = ["lost", "lost_5xx", "lost_html", "broken", "empty"]


@pytest.fixture
def world() -> World:
    made = World()
    made.jobnimbus.put(Entity.JOBS, "mjob1", name="Whitfield", description="Hail", type="job")
    made.jobnimbus.put(Entity.INVOICES, "minv1", type="invoice", note="", items=[{"name": "Shingles"}])
    return made


def audit(world: World, number: int = -1) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(world.told.written[number].audit)
    return told


class TestWhatGoesWell:
    async def test_a_new_record_is_answered_told_and_audited(self, world: World) -> None:
        made = await world.write(NEW_TASK)

        assert (made.jnid, made.action, made.before, made.replayed, made.note) == (
            "tasks1",
            Action.CREATED,
            None,
            False,
            "",
        )
        assert made.changed == ("title", "date_start", "record_type_name", "related")
        assert made.record == world.jobnimbus.records[Entity.TASKS, "tasks1"]
        (told,) = world.told.written
        assert (told.instance, told.ref.entity, told.ref.jnid, told.action) == (
            "stamford",
            Entity.TASKS,
            "tasks1",
            Action.CREATED,
        )
        assert told.record == made.record
        assert audit(world) == {
            "by": "crew-bot",
            "tool": "create_task",
            "request_id": "req-1",
            "action": "created",
            "outcome": "done",
            "changed": {
                "title": {"before": None, "after": "Call the adjuster"},
                "date_start": {"before": None, "after": 1_790_000_000},
                "record_type_name": {"before": None, "after": "Call"},
                "related": {"before": None, "after": [{"id": "mjob1"}]},
            },
        }

    async def test_an_update_names_what_it_changed_and_not_what_was_so_already(self, world: World) -> None:
        made = await world.write(RENAMED)

        assert made.changed == ("name",)
        assert made.before is not None
        assert (made.before["name"], made.record["name"]) == ("Whitfield", "Whitfield - Roof")
        assert audit(world)["changed"] == {"name": {"before": "Whitfield", "after": "Whitfield - Roof"}}
        assert world.told.actions == [("jobs", "mjob1", "updated")]

    async def test_a_deletion_gives_the_record_as_it_was(self, world: World) -> None:
        made = await world.write(DELETED)

        assert (made.record["name"], made.before, made.changed) == ("Whitfield", made.record, ("is_active",))
        assert audit(world)["changed"] == {"is_active": {"before": True, "after": False}}
        assert world.told.actions == [("jobs", "mjob1", "deleted")]
        assert world.jobnimbus.of(Entity.JOBS) == []

    async def test_a_document_goes_back_whole_from_a_fresh_look_whatever_is_kept(self, world: World) -> None:
        world.records.kept["minv1"] = {"jnid": "minv1", "note": "", "items": []}
        await world.write(PRICED)

        assert world.records.asked == [("minv1", 0)]
        assert [base and base["items"] for base in world.jobnimbus.bases] == [[{"name": "Shingles"}]]
        assert world.jobnimbus.records[Entity.INVOICES, "minv1"]["items"] == [{"name": "Shingles"}]

    async def test_other_kinds_are_changed_without_their_document(self, world: World) -> None:
        await world.write(RENAMED)

        assert (world.records.asked, world.jobnimbus.bases) == ([("mjob1", None)], [None])

    async def test_what_a_new_record_cannot_be_made_with_is_set_right_after(self, world: World) -> None:
        made = await world.write(NEW_CONTACT)

        first, second = world.jobnimbus.sent
        assert (first, second) == (
            NEW_CONTACT,
            Write(Entity.CONTACTS, Action.UPDATED, "contacts1", {"sales_rep": "musr1"}),
        )
        assert (made.record["sales_rep"], made.note) == ("musr1", "")
        assert world.told.actions == [("contacts", "contacts1", "created")]

    async def test_when_the_second_step_fails_the_record_is_there_and_it_is_said(self, world: World) -> None:
        world.jobnimbus.script.extend(["ok", "refused"])
        made = await world.write(NEW_CONTACT)

        assert made.jnid == "contacts1"
        assert made.note == ("It was made, but sales_rep could not be set (upstream_rejected): set it by an update.")

    async def test_a_setting_is_told_as_a_change_of_the_settings(self, world: World) -> None:
        made = await world.write(NEW_SOURCE)

        assert (made.record, made.jnid) == ({"id": 7, "SourceName": "Door hanger"}, "")
        assert world.told.actions == [("settings", "all", "updated")]
        assert world.records.asked == []

    async def test_an_upload_is_told_with_name_and_size_only(self, world: World) -> None:
        made = await world.upload(PHOTO)

        assert made.record["related"] == [{"id": "mjob1"}]
        assert world.told.actions == [("attachments", "attachments1", "created")]
        assert audit(world)["changed"] == {
            "filename": {"before": None, "after": "roof.jpg"},
            "size": {"before": None, "after": 5},
        }

    @pytest.mark.parametrize("write", [RENAMED, NEW_TASK], ids=str)
    async def test_what_is_answered_with_its_id_alone_is_read_again(self, world: World, write: Write) -> None:
        world.jobnimbus.bare = True
        made = await world.write(write)

        assert (made.record, made.note) == (world.jobnimbus.records[write.entity, made.jnid], "")

    async def test_an_update_answered_without_a_record_is_read_again(self, world: World) -> None:
        world.jobnimbus.script.append("empty")
        made = await world.write(RENAMED)

        assert (made.record["name"], made.changed, made.note) == ("Whitfield - Roof", ("name",), "")

    async def test_when_that_fails_it_is_done_all_the_same(self, world: World) -> None:
        world.jobnimbus.bare = world.jobnimbus.away = True
        made = await world.write(NEW_TASK)

        assert made.record == {"jnid": "tasks1"}
        assert made.note.startswith("JobNimbus took it, and does not show title,")


class TestWhatNeedNotBeSent:
    async def test_what_is_missing_is_named_before_anything_is_sent(self, world: World) -> None:
        with pytest.raises(InvalidInput) as refused:
            await world.write(Write(Entity.TASKS, Action.CREATED, fields={"title": "x"}))

        assert refused.value.field == "date_start"
        assert refused.value.public_message == "A new task needs date_start, record_type_name. Nothing was sent."
        assert world.jobnimbus.sent == []

    @pytest.mark.parametrize(
        "write",
        [
            Write(Entity.BUDGETS, Action.CREATED),
            Write(Entity.PAYMENTS, Action.UPDATED, "mpay1", fields={"total": 1}),
            Write(Entity.ACTIVITIES, Action.DELETED, "mact1"),
        ],
        ids=str,
    )
    async def test_what_jobnimbus_has_no_way_to_do_is_not_tried(self, world: World, write: Write) -> None:
        with pytest.raises(InvalidInput) as refused:
            await world.write(write)

        assert refused.value.public_message.startswith("JobNimbus has no way to ")
        assert (world.jobnimbus.sent, world.records.asked) == ([], [])

    @pytest.mark.parametrize(
        ("upload", "field"),
        [
            (Upload(" ", "image/jpeg", 2, (JOB,), content=b"1"), "filename"),
            (Upload("a.jpg", "image/jpeg", 2, (), content=b"1"), "related"),
            (Upload("a.jpg", "image/jpeg", 2, (JOB,)), "content"),
            (Upload("a.jpg", "image/jpeg", 2, (JOB,), content=b"1", source_url="https://x"), "content"),
        ],
    )
    async def test_a_file_that_cannot_be_stored_is_not_sent(self, world: World, upload: Upload, field: str) -> None:
        with pytest.raises(InvalidInput) as refused:
            await world.upload(upload)

        assert (refused.value.field, world.jobnimbus.sent) == (field, [])

    async def test_an_update_that_changes_nothing_is_not_sent(self, world: World) -> None:
        made = await world.write(Write(Entity.JOBS, Action.UPDATED, "mjob1", fields={"name": "Whitfield"}))

        assert (made.changed, made.note) == ((), "The record was so already; nothing was sent.")
        assert (world.jobnimbus.sent, world.told.written) == ([], [])

    async def test_nothing_is_left_out_on_the_word_of_a_kept_record(self, world: World) -> None:
        world.records.kept["mjob1"] = {"jnid": "mjob1", "name": "Whitfield - Roof", "description": "Hail"}
        made = await world.write(RENAMED)

        assert made.changed == ("name",)
        assert world.jobnimbus.records[Entity.JOBS, "mjob1"]["name"] == "Whitfield - Roof"

    @pytest.mark.parametrize("write", [RENAMED, DELETED, PRICED], ids=str)
    async def test_what_is_not_there_cannot_be_changed(self, world: World, write: Write) -> None:
        world.jobnimbus.records.clear()
        with pytest.raises(RecordNotFound):
            await world.write(write, "key")

        assert (world.jobnimbus.sent, world.told.written) == ([], [])


class TestWhatJobNimbusRefuses:
    async def test_its_words_are_quoted(self, world: World) -> None:
        world.jobnimbus.script.append("refused")
        with pytest.raises(WriteRefused) as refused:
            await world.write(NEW_TASK)

        assert refused.value.public_message == ("JobNimbus does not take this task: Invalid record_type_name - Nope")
        assert world.told.written == []

    async def test_a_name_that_is_taken_is_a_duplicate(self, world: World) -> None:
        await world.write(NEW_JOB)
        with pytest.raises(DuplicateRecord) as refused:
            await world.write(NEW_JOB)

        assert refused.value.field == "name"
        assert "Duplicate job exists" in refused.value.public_message

    @pytest.mark.parametrize(
        ("fate", "kind"),
        [
            ("429", UpstreamRateLimited),
            ("budget", BudgetExhausted),
            ("unsent", UpstreamUnreachable),
            ("401", UpstreamUnauthorized),
            ("403", UpstreamForbidden),
            ("404", RecordNotFound),
            ("refused", WriteRefused),
        ],
    )
    async def test_what_was_certainly_not_carried_out_frees_the_key(
        self, world: World, fate: str, kind: type[ProjectError]
    ) -> None:
        world.jobnimbus.script.append(fate)
        with pytest.raises(kind):
            await world.write(RENAMED, "key")
        assert world.told.written == []

        made = await world.write(RENAMED, "key")
        assert (made.replayed, made.changed) == (False, ("name",))

    async def test_fields_that_jobnimbus_ignores_are_named(self, world: World) -> None:
        world.jobnimbus.hides = frozenset({"name"})
        made = await world.write(
            Write(Entity.JOBS, Action.UPDATED, "mjob1", fields={"name": "x", "description": "Wind"})
        )

        assert made.changed == ("description",)
        assert made.note.startswith("JobNimbus took it, and does not show name as sent:")

    async def test_a_record_made_without_its_links_is_told_so(self, world: World) -> None:
        world.jobnimbus.drops_links = True
        made = await world.write(NEW_TASK)

        assert made.note.startswith("JobNimbus took it, and does not show related as sent:")

    @pytest.mark.parametrize("lag_s", [0.0, 3.0, 60.0])
    async def test_what_only_lists_show_is_answered_when_they_do(self, world: World, lag_s: float) -> None:
        world.jobnimbus.lag_s = lag_s
        fields = {"total": 100, "date_payment": 1_790_000_000}
        began = world.clock.monotonic()
        made = await world.write(Write(Entity.PAYMENTS, Action.CREATED, fields=fields, links=NEW_TASK.links))

        assert world.clock.monotonic() - began == min(lag_s, 6.0)
        late = "JobNimbus's lists do not show it yet; they may take some seconds more."
        assert made.note == (late if lag_s == 60 else "")

    async def test_of_what_keeps_its_first_link_alone_the_others_are_named(self, world: World) -> None:
        made = await world.write(replace(NEW_TASK, links=(*NEW_TASK.links, Link("mcontact9", Entity.CONTACTS))))
        assert made.note == "JobNimbus keeps the first link of a task alone; it does not hang on mcontact9."

        alone = await world.write(replace(NEW_TASK, fields={**NEW_TASK.fields, "title": "Another"}))
        assert alone.note == ""

    async def test_a_file_stored_without_its_link_is_deleted_again(self, world: World) -> None:
        world.jobnimbus.drops_links = True
        with pytest.raises(WriteRefused) as refused:
            await world.upload(PHOTO)

        assert "It was deleted again." in refused.value.public_message
        assert world.jobnimbus.of(Entity.ATTACHMENTS) == []
        assert world.told.actions == [("attachments", "attachments1", "unknown")]
        assert world.clock.monotonic() >= 2.0  # sooner, JobNimbus answers a deletion and does nothing

    async def test_a_file_without_its_link_that_cannot_be_deleted_is_named(self, world: World) -> None:
        world.jobnimbus.drops_links = True
        world.jobnimbus.script.extend(["ok", "5xx"])
        with pytest.raises(WriteRefused) as refused:
            await world.upload(PHOTO)

        assert "it is still there, with the id attachments1" in refused.value.public_message

    async def test_a_file_answered_with_its_id_alone_is_looked_for_in_the_list(self, world: World) -> None:
        world.jobnimbus.bare, world.jobnimbus.lag_s = True, 2.0
        made = await world.upload(PHOTO)

        assert (made.record["related"], made.note) == ([{"id": "mjob1"}], "")

    async def test_a_file_that_the_list_never_shows_is_stored_all_the_same(self, world: World) -> None:
        world.jobnimbus.bare, world.jobnimbus.lag_s = True, 1_000.0
        made = await world.upload(PHOTO)

        assert made.record == {"filename": "roof.jpg", "size": 5, "jnid": "attachments1"}
        assert made.note == "The file is stored; JobNimbus's list does not show yet what it hangs on."


class TestWithoutAnAnswer:
    @pytest.mark.parametrize("fate", [fate for fate in UNANSWERED if fate != "empty"])
    @pytest.mark.parametrize("write", [RENAMED, PRICED, DELETED], ids=str)
    async def test_a_change_that_is_seen_to_be_done_is_done(self, world: World, write: Write, fate: str) -> None:
        world.jobnimbus.script.append(fate)
        made = await world.write(write)

        assert made.note == "JobNimbus did not say that it was done, but it was seen to be."
        assert len(world.jobnimbus.sent) == 1
        assert world.told.actions == [(write.entity.value, write.record_id, write.action.value)]

    @pytest.mark.parametrize("fate", UNANSWERED)
    @pytest.mark.parametrize("write", [NEW_TASK, NEW_JOB], ids=str)
    async def test_a_new_record_is_found_when_the_index_has_it(self, world: World, write: Write, fate: str) -> None:
        world.jobnimbus.lag_s = 2.5
        world.jobnimbus.script.append(fate)
        made = await world.write(write)

        assert made.jnid == f"{write.entity.value}1"
        assert len(world.jobnimbus.sent) == 1
        assert world.told.actions == [(write.entity.value, made.jnid, "created")]

    @pytest.mark.parametrize("write", [RENAMED, PRICED, DELETED, NEW_TASK, NEW_JOB, NEW_SOURCE], ids=str)
    @pytest.mark.parametrize("fate", ["timeout", "5xx"])
    async def test_what_is_not_seen_is_unknown_and_everything_it_may_touch_is_renewed(
        self, world: World, write: Write, fate: str
    ) -> None:
        world.jobnimbus.script.append(fate)
        with pytest.raises(WriteOutcomeUnknown) as unknown:
            await world.write(write, "key")

        assert "The same call with the same idempotency_key is safe" in unknown.value.public_message
        assert len(world.jobnimbus.sent) == 1
        jnid = "all" if write is NEW_SOURCE else write.record_id
        assert world.told.actions == [(write.entity.value, jnid, "unknown")]
        assert (audit(world)["outcome"], audit(world)["action"]) == ("unknown", write.action.value)

    async def test_a_file_is_looked_for_as_well(self, world: World) -> None:
        world.jobnimbus.script.append("lost")
        made = await world.upload(PHOTO)
        assert (made.jnid, len(world.jobnimbus.sent)) == ("attachments1", 1)

        world.jobnimbus.script.append("timeout")
        with pytest.raises(WriteOutcomeUnknown):
            await world.upload(PHOTO)

    async def test_another_s_record_of_the_same_words_is_not_taken_for_ours(self, world: World) -> None:
        first = await world.write(NEW_TASK)
        world.jobnimbus.script.append("timeout")
        with pytest.raises(WriteOutcomeUnknown):
            await world.write(NEW_TASK)

        assert [row["jnid"] for row in world.jobnimbus.of(Entity.TASKS)] == [first.jnid]

    async def test_a_clock_that_is_a_little_behind_hides_nothing(self, world: World) -> None:
        world.jobnimbus.behind_s = 4.0
        world.jobnimbus.script.append("lost")
        assert (await world.write(NEW_TASK)).jnid == "tasks1"

    async def test_of_two_that_are_alike_neither_is_ours(self, world: World) -> None:
        twins = [world.jobnimbus._act(NEW_TASK, None) for _ in range(2)]
        world.jobnimbus.script.append("timeout")
        with pytest.raises(WriteOutcomeUnknown):
            await world.write(NEW_TASK)

        assert world.jobnimbus.of(Entity.TASKS) == twins

    async def test_time_is_kept_for_looking_when_no_answer_comes(self, world: World) -> None:
        world.jobnimbus.script.append("lost")
        seen: list[float] = []
        inner = world.jobnimbus.write

        async def write(write: Write, **told: Any) -> dict[str, Any]:
            seen.append(told["call"].remaining_s(world.clock))
            return await inner(write, **told)

        world.jobnimbus.write = write  # type: ignore[method-assign]  # listens to what it is handed
        await world.write(RENAMED)

        assert seen == [11.0]


class TestTheSameKeyAgain:
    @pytest.mark.parametrize("write", [NEW_TASK, RENAMED, PRICED, DELETED, NEW_SOURCE], ids=str)
    async def test_what_was_done_is_told_again_and_not_done(self, world: World, write: Write) -> None:
        first = await world.write(write, "key")
        again = await world.write(write, "key")

        assert len(world.jobnimbus.sent) == 1
        assert (again.replayed, again.action, again.changed) == (True, first.action, first.changed)
        assert again.jnid == first.jnid
        if write is not DELETED:
            assert again.record == first.record
        assert len(world.told.written) == 1

    async def test_an_upload_too(self, world: World) -> None:
        first = await world.upload(PHOTO, "key")
        world.jobnimbus.records[Entity.ATTACHMENTS, "attachments1"]["description"] = "changed since"
        again = await world.upload(PHOTO, "key")

        assert (again.jnid, again.record["description"]) == (first.jnid, "changed since")
        assert len(world.jobnimbus.sent) == 1

    async def test_other_content_under_the_same_key_is_another_upload(self, world: World) -> None:
        await world.upload(PHOTO, "key")
        with pytest.raises(InvalidInput):
            await world.upload(replace(PHOTO, content=b"54321"), "key")

    async def test_briefly_the_record_is_not_read_again(self, world: World) -> None:
        await world.write(NEW_TASK, "key")
        again = await world.write(NEW_TASK, "key", brief=True)

        assert (again.record, world.records.asked) == ({"jnid": "tasks1"}, [])

    async def test_a_record_that_is_gone_by_now_was_made_all_the_same(self, world: World) -> None:
        await world.write(NEW_TASK, "key")
        world.jobnimbus.records.clear()
        again = await world.write(NEW_TASK, "key")

        assert (again.record, again.replayed) == ({"jnid": "tasks1"}, True)
        assert again.note.endswith("The record could not be read now (not_found).")

    async def test_another_write_of_the_same_key_is_refused(self, world: World) -> None:
        await world.write(NEW_TASK, "key")
        with pytest.raises(InvalidInput) as refused:
            await world.write(NEW_JOB, "key")

        assert refused.value.field == "idempotency_key"
        assert len(world.jobnimbus.sent) == 1

    async def test_keys_of_two_callers_have_nothing_in_common(self, world: World) -> None:
        await world.write(NEW_TASK, "key")
        other = Caller("stamford", "g" * 16, "q" * 32, own_key=True)
        made = await world.write(NEW_TASK, "key", caller=other)

        assert (made.replayed, len(world.jobnimbus.sent)) == (False, 2)
        assert audit(world)["by"] == "partition:qqqqqqqq"

    async def test_while_one_is_at_it_the_other_hears_so(self, world: World) -> None:
        world.jobnimbus.slow_s = 5.0
        slow = asyncio.ensure_future(world.writes.write(NEW_TASK, CALLER, world.call(), idempotency_key="key"))
        await asyncio.sleep(0)
        with pytest.raises(WriteInProgress) as busy:
            await world.another().write(NEW_TASK, CALLER, world.call(), idempotency_key="key")

        assert busy.value.retry_after_s == 5.0
        assert (await world.driven(slow)).jnid == "tasks1"

    @pytest.mark.parametrize("key", ["", " ", "k" * 201])
    async def test_a_key_that_is_none_is_refused(self, world: World, key: str) -> None:
        with pytest.raises(InvalidInput) as refused:
            await world.write(NEW_TASK, key)
        assert refused.value.field == "idempotency_key"

    @pytest.mark.parametrize("write", [NEW_TASK, NEW_JOB, NEW_CONTACT], ids=str)
    async def test_what_was_made_without_a_word_is_found_later(self, world: World, write: Write) -> None:
        world.jobnimbus.lag_s = 100.0
        world.jobnimbus.script.append("lost")
        with pytest.raises(WriteOutcomeUnknown):
            await world.write(write, "key")
        world.jobnimbus.lag_s = 0.0
        again = await world.write(write, "key")

        assert (again.replayed, again.jnid) == (True, f"{write.entity.value}1")
        assert len(world.jobnimbus.of(write.entity)) == (2 if write is NEW_JOB else 1)
        assert world.told.actions[-1] == (write.entity.value, again.jnid, "created")
        if write is NEW_CONTACT:
            assert again.record["sales_rep"] == "musr1"  # the second step is made up for
        assert (await world.write(write, "key")).jnid == again.jnid

    async def test_what_was_not_made_is_made_once_the_index_has_had_its_time(self, world: World) -> None:
        world.jobnimbus.script.append("timeout")
        with pytest.raises(WriteOutcomeUnknown):
            await world.write(NEW_TASK, "key")
        before = world.clock.monotonic()
        made = await world.write(NEW_TASK, "key")

        assert (made.replayed, len(world.jobnimbus.of(Entity.TASKS))) == (False, 1)
        assert world.clock.monotonic() - before >= SETTLE_S

    async def test_who_asks_again_too_soon_with_too_little_time_is_told_when(self, world: World) -> None:
        world.jobnimbus.script.append("timeout")
        with pytest.raises(WriteOutcomeUnknown):
            await world.write(NEW_TASK, "key")
        for left_s in (6.0, 4.0, 2.0):  # looking does not put it off
            with pytest.raises(WriteOutcomeUnknown) as unknown:
                await world.writes.write(NEW_TASK, CALLER, world.call(1.0), idempotency_key="key")
            assert unknown.value.retry_after_s == left_s
            world.clock.advance(2.0)
        made = await world.writes.write(NEW_TASK, CALLER, world.call(4.0), idempotency_key="key")

        assert (made.jnid, len(world.jobnimbus.sent)) == ("tasks1", 2)

    async def test_what_is_like_it_keeps_it_from_being_made_again(self, world: World) -> None:
        world.jobnimbus.script.append("lost")
        world.jobnimbus.hides = frozenset({"record_type_name"})
        with pytest.raises(WriteOutcomeUnknown):
            await world.write(NEW_TASK, "key")
        world.clock.advance(60.0)
        with pytest.raises(WriteOutcomeUnknown):
            await world.write(NEW_TASK, "key")

        assert len(world.jobnimbus.of(Entity.TASKS)) == 1

    async def test_who_may_not_have_seen_everything_makes_nothing_again(self, world: World) -> None:
        world.jobnimbus.script.append("timeout")
        world.jobnimbus.incomplete = True
        for _ in range(2):
            with pytest.raises(WriteOutcomeUnknown):
                await world.write(NEW_TASK, "key")
            world.clock.advance(60.0)

        assert len(world.jobnimbus.sent) == 1

    async def test_a_change_of_unknown_end_is_made_again_unless_it_is_seen(self, world: World) -> None:
        world.jobnimbus.script.append("timeout")
        with pytest.raises(WriteOutcomeUnknown):
            await world.write(RENAMED, "key")
        made = await world.write(RENAMED, "key")
        assert (made.replayed, len(world.jobnimbus.sent)) == (False, 2)

        world.jobnimbus.away = True
        world.records.kept["mjob1"] = {"jnid": "mjob1", "name": "x"}
        world.jobnimbus.script.append("lost")
        renamed = Write(Entity.JOBS, Action.UPDATED, "mjob1", fields={"name": "Again"})
        with pytest.raises(WriteOutcomeUnknown):
            await world.write(renamed, "other")
        with pytest.raises(WriteOutcomeUnknown):  # nobody can say while JobNimbus is away
            await world.write(renamed, "other")
        world.jobnimbus.away = False
        made = await world.write(renamed, "other")
        assert (made.replayed, len(world.jobnimbus.sent)) == (True, 3)

    async def test_a_setting_of_unknown_end_is_sent_again(self, world: World) -> None:
        world.jobnimbus.script.append("lost")
        with pytest.raises(WriteOutcomeUnknown):
            await world.write(NEW_SOURCE, "key")
        assert (await world.write(NEW_SOURCE, "key")).record == {"id": 7, "SourceName": "Door hanger"}

    async def test_a_duplicate_that_the_first_try_has_made_is_the_record(self, world: World) -> None:
        world.jobnimbus.lag_s = 14.0
        world.jobnimbus.script.append("lost")
        with pytest.raises(WriteOutcomeUnknown):
            await world.write(NEW_JOB, "key")
        made = await world.write(NEW_JOB, "key")

        assert (made.record["name"], len(world.jobnimbus.sent)) == ("Okafor - Gutters", 2)
        assert len(world.jobnimbus.of(Entity.JOBS)) == 2

    async def test_a_process_that_dies_leaves_a_key_that_looks_first(self, world: World) -> None:
        owner, fingerprint = Owner(CALLER.instance, CALLER.partition), RecordOrder(NEW_TASK).fingerprint
        await world.memory.begin(owner, "key", fingerprint, world.clock.now(), lease_s=34.0)
        world.jobnimbus._act(NEW_TASK, None)
        with pytest.raises(WriteInProgress):
            await world.write(NEW_TASK, "key")
        world.clock.advance(34.0)
        made = await world.write(NEW_TASK, "key")

        assert (made.replayed, made.jnid, world.jobnimbus.sent) == (True, "tasks1", [])

    async def test_a_refusal_after_a_doubtful_try_leaves_the_key_doubtful(self, world: World) -> None:
        world.jobnimbus.script.extend(["timeout", "429"])
        with pytest.raises(WriteOutcomeUnknown):
            await world.write(NEW_TASK, "key")
        with pytest.raises(UpstreamRateLimited):
            await world.write(NEW_TASK, "key")
        world.jobnimbus._act(NEW_TASK, None)  # what the first try sent arrives late
        made = await world.write(NEW_TASK, "key")

        assert (made.replayed, len(world.jobnimbus.of(Entity.TASKS))) == (True, 1)


class TestWithTheStoreAway:
    async def test_a_key_cannot_be_promised_and_nothing_is_sent(self, world: World) -> None:
        world.receipts = AwayReceipts(world.memory)
        with pytest.raises(CacheUnavailable) as away:
            await world.driven(world.another().write(NEW_TASK, CALLER, world.call(), idempotency_key="key"))

        assert "leave idempotency_key out" in away.value.public_message.replace("\n", " ")
        assert world.jobnimbus.sent == []

    async def test_what_was_made_without_a_word_is_seen_all_the_same(self, world: World) -> None:
        world.receipts = AwayReceipts(world.memory)
        world.jobnimbus.script.append("lost")
        call = world.call()
        made = await world.driven(world.another().write(NEW_TASK, CALLER, call))

        assert (made.jnid, len(world.jobnimbus.sent)) == ("tasks1", 1)

    async def test_without_a_key_it_is_not_asked(self, world: World) -> None:
        world.receipts = AwayReceipts(world.memory)
        made = await world.driven(world.another().write(NEW_TASK, CALLER, world.call()))
        assert made.jnid == "tasks1"

    @pytest.mark.parametrize("fate", ["ok", "refused"])
    async def test_a_key_whose_end_was_not_kept_heals_by_itself(self, world: World, fate: str) -> None:
        world.receipts = AwayReceipts(world.memory, answers=1)
        world.jobnimbus.script.append(fate)
        began = world.another()
        try:
            await world.driven(began.write(NEW_TASK, CALLER, world.call(), idempotency_key="key"))
        except WriteRefused:
            assert fate == "refused"
        world.receipts.answers = 100
        world.clock.advance(60.0)
        made = await world.driven(began.write(NEW_TASK, CALLER, world.call(), idempotency_key="key"))
        world.writes = world.another()
        again = await world.write(NEW_TASK, "key")

        assert len(world.jobnimbus.of(Entity.TASKS)) == 1
        assert made.jnid == again.jnid == "tasks1"

    async def test_a_cache_that_cannot_be_told_is_mentioned_and_the_write_is_done(self, world: World) -> None:
        world.told.away = True
        made = await world.write(NEW_TASK)
        assert made.note == "It is done, but the cache could not be told: for a while, read with max_age_s 0."


class TestWhoLeaves:
    async def test_what_was_sent_is_seen_through_and_told(self, world: World) -> None:
        world.jobnimbus.slow_s = 3.0
        task = asyncio.ensure_future(world.writes.write(NEW_TASK, CALLER, world.call(), idempotency_key="key"))
        await _until(lambda: world.jobnimbus.sent)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert world.told.written == []
        await world.driven(world.writes.aclose())

        assert world.told.actions == [("tasks", "tasks1", "created")]
        assert (await world.write(NEW_TASK, "key")).replayed

    async def test_who_leaves_before_anything_was_sent_has_written_nothing(self, world: World) -> None:
        gone = asyncio.Event()

        async def get(*_: Any, **__: Any) -> Any:
            await gone.wait()

        world.records.get = get  # type: ignore[method-assign]  # a read that does not end
        task = asyncio.ensure_future(world.writes.write(RENAMED, CALLER, world.call(), idempotency_key="key"))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        assert (world.jobnimbus.sent, world.told.written) == ([], [])
        del world.records.get  # type: ignore[method-assign]  # as above
        assert (await world.write(RENAMED, "key")).changed == ("name",)

    async def test_at_a_stop_what_has_not_ended_is_told_as_what_may_have_been(self, world: World) -> None:
        world.jobnimbus.slow_s = 1_000.0
        task = asyncio.ensure_future(world.writes.write(NEW_TASK, CALLER, world.call(), idempotency_key="key"))
        await _until(lambda: world.jobnimbus.sent)
        await world.writes.aclose(within_s=0.01)
        with pytest.raises(WriteOutcomeUnknown):
            await task

        assert world.told.actions == [("tasks", "", "unknown")]

    async def test_at_a_stop_what_was_not_sent_is_not(self, world: World) -> None:
        async def get(*_: Any, **__: Any) -> Any:
            await asyncio.Event().wait()

        world.records.get = get  # type: ignore[method-assign]  # a read that does not end
        async with world.writes.running():
            task = asyncio.ensure_future(world.writes.write(RENAMED, CALLER, world.call()))
            await asyncio.sleep(0.01)
            await world.writes.aclose(within_s=0.01)
        with pytest.raises(Stopping):
            await task
        assert world.jobnimbus.sent == []


class TestTogether:
    async def test_two_changes_of_one_document_both_hold(self, world: World) -> None:
        world.jobnimbus.slow_s = 1.0
        other = Write(Entity.INVOICES, Action.UPDATED, "minv1", fields={"terms": "Net 30"})
        both = asyncio.gather(*(world.writes.write(one, CALLER, world.call()) for one in (PRICED, other)))
        await world.driven(both)

        record = world.jobnimbus.records[Entity.INVOICES, "minv1"]
        assert (record["note"], record["terms"]) == ("Due on receipt", "Net 30")
        assert world.writes._carrier._turns._locks == {}

    async def test_two_changes_of_one_document_both_hold_from_two_processes(self, world: World) -> None:
        world.jobnimbus.slow_s = 1.0
        terms = Write(Entity.INVOICES, Action.UPDATED, "minv1", fields={"terms": "Net 30"})
        of_another_key = replace(CALLER, partition="q" * 32)
        first = world.writes.write(PRICED, CALLER, world.call())
        second = world.another().write(terms, of_another_key, world.call())
        await world.driven(asyncio.gather(first, second))

        record = world.jobnimbus.records[Entity.INVOICES, "minv1"]
        assert (record["note"], record["terms"]) == ("Due on receipt", "Net 30")

    async def test_the_turn_of_a_process_that_died_ends_with_its_call(self, world: World) -> None:
        owner, key = Owner(CALLER.instance, "turns"), "invoices:minv1"
        await world.memory.begin(owner, key, "turns", 0.0, lease_s=10.0)
        with pytest.raises(WriteInProgress):
            await world.driven(world.writes.write(PRICED, CALLER, world.call(5.0)))
        assert world.jobnimbus.sent == []
        assert (await world.write(PRICED)).changed == ("note",)
        # and it was given back
        assert isinstance(await world.memory.begin(owner, key, "turns", 0.0, lease_s=1.0), New)

    @pytest.mark.parametrize("answers", [0, 1])
    async def test_without_the_store_a_document_is_changed_all_the_same(self, world: World, answers: int) -> None:
        world.receipts = AwayReceipts(world.memory, answers)
        result = await world.driven(world.another().write(PRICED, CALLER, world.call()))
        assert result.changed == ("note",)

    async def test_whose_turn_does_not_come_in_time_is_told_so(self, world: World) -> None:
        world.jobnimbus.slow_s = 5.0
        first = asyncio.ensure_future(world.writes.write(PRICED, CALLER, world.call()))
        await _until(lambda: world.jobnimbus.sent)
        with pytest.raises(WriteInProgress):
            await world.writes.write(PRICED, CALLER, world.call(0.01))

        assert (await world.driven(first)).changed == ("note",)
        assert (len(world.jobnimbus.sent), world.writes._carrier._turns._locks) == (1, {})

    async def test_of_one_key_sent_twice_at_once_one_record_comes(self, world: World) -> None:
        world.jobnimbus.slow_s = 1.0
        both = [world.another().write(NEW_TASK, CALLER, world.call(), idempotency_key="key") for _ in range(2)]
        made, busy = await world.driven(asyncio.gather(*both, return_exceptions=True))

        assert (made.jnid, type(busy), len(world.jobnimbus.sent)) == ("tasks1", WriteInProgress, 1)


class TestWhatIsLogged:
    @pytest.mark.parametrize(
        ("write", "fate", "outcome", "changed"),
        [
            (RENAMED, "ok", "done", ["name"]),
            (RENAMED, "refused", "write_refused", []),
            (Write(Entity.JOBS, Action.UPDATED, "mjob1", fields={"name": "Whitfield"}), "ok", "unchanged", []),
            (RENAMED, "timeout", "write_outcome_unknown", []),
        ],
        ids=str,
    )
    async def test_one_line_and_one_count_of_each_write_without_a_value(
        self, world: World, write: Write, fate: str, outcome: str, changed: list[str]
    ) -> None:
        world.jobnimbus.script.append(fate)
        with capture_logs() as logged:
            world.writes = world.another()
            with suppress(ProjectError):
                await world.write(write)

        (line,) = [line for line in logged if line["event"] == "write"]
        assert line.pop("ms") >= 0
        assert line == {
            "event": "write",
            "log_level": "info",
            "by": "crew-bot",
            "tool": "create_task",
            "instance": "stamford",
            "entity": "jobs",
            "record_id": "mjob1",
            "action": "updated",
            "outcome": outcome,
            "changed": changed,
            "request_id": "req-1",
        }
        assert "Whitfield" not in str(logged)
        labels = (("action", "updated"), ("entity", "jobs"), ("outcome", outcome))
        assert world.recorder.counts == {("writes", labels): 1}
        assert len(world.recorder.observed["write_seconds"]) == 1


async def _until(met: Any) -> None:
    for _ in range(100):
        if met():
            return
        await asyncio.sleep(0)
    raise AssertionError("never")


EARLIER = Write(
    Entity.ACTIVITIES,
    Action.CREATED,
    fields={"note": "Called", "record_type_name": "Note", "date_created": 1_600_000_000},
    links=(JOB,),
)


async def test_a_note_under_an_earlier_date_is_found_under_it_and_not_made_twice() -> None:
    """Source: JobNimbus API documentation, activities: `date_created` may be set, for back-dating."""
    world = World()
    world.jobnimbus.keeps_dates = True
    world.jobnimbus.put(Entity.ACTIVITIES, "mact1", note="Called", record_type_name="Note", date_created=1_600_000_000)
    world.jobnimbus.lag_s = 60.0
    world.jobnimbus.script.append("lost")
    with pytest.raises(WriteOutcomeUnknown):
        await world.write(EARLIER, "key-1")
    world.clock.advance(60)
    result = await world.write(EARLIER, "key-1")
    assert (result.replayed, len(world.jobnimbus.sent)) == (True, 1)
    assert [one["jnid"] for one in world.jobnimbus.of(Entity.ACTIVITIES)] == ["mact1", result.jnid]
    # of a year's activities those of the one job, or JobNimbus would not tell them all
    of_the_job = AnyOf((Is("primary.id", "mjob1"), Is("related.id", "mjob1")))
    assert world.jobnimbus.loads[-1].where == (of_the_job, Between("date_created", 1_600_000_000))


async def test_what_jobnimbus_took_is_not_sent_again_whatever_went_wrong_afterwards() -> None:
    world = World()
    world.told.broken = True
    with pytest.raises(InternalError):
        await world.write(NEW_TASK, "key-1")
    world.told.broken = False
    result = await world.write(NEW_TASK, "key-1")
    assert (result.replayed, len(world.jobnimbus.sent)) == (True, 1)

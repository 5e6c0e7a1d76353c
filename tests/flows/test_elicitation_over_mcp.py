"""Asking a person before something is done: by an answer, by a request, or, where neither can be, by the agent."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from faces import BOUND_S, Dropper, face_of, over_http
from mcp import StdioServerParameters
from mcp.client import Client
from mcp.shared.exceptions import MCPError
from mcp.types import INVALID_PARAMS, ElicitResult, ErrorData, InputRequiredResult

from jobnimbus_mcp.tools.spec import RECORD_OUTPUT

MODERN, LEGACY = "2026-07-28", "legacy"
SUPPORT = Path(__file__).parents[1] / "support"
DECLINED = {"done": "unchanged", "note": "Nothing was done: the person declined."}
both_eras = pytest.mark.parametrize("mode", [MODERN, LEGACY])


class Person:
    """Answers what it is asked, and remembers the questions."""

    def __init__(self, action: str = "accept", content: dict[str, Any] | None = None) -> None:
        self.answer = ElicitResult(action=action, content=content)
        self.questions: list[str] = []

    async def __call__(self, context: Any, params: Any) -> ElicitResult | ErrorData:
        self.questions.append(params.message)
        assert params.requested_schema["properties"]["confirm"]["type"] == "boolean"
        return self.answer


def agreeing() -> Person:
    return Person(content={"confirm": True})


@pytest.fixture
async def app(open_world: Any, stage: Any) -> AsyncIterator[Any]:
    """One account and the server's own key: callers in memory bring none."""
    only = {"JOBNIMBUS_INSTANCES": "stamford", "JOBNIMBUS_API_KEY": stage.sim.keys["stamford"][0]}
    async with open_world(only) as world:
        yield world.app


@asynccontextmanager
async def in_memory(app: Any, dropper: Dropper, mode: str, person: Person | None) -> AsyncIterator[Client]:
    async with Client(face_of(app, dropper.spec()).server, mode=mode, elicitation_callback=person) as client:
        yield client


async def drop(client: Client, what: str = "j1", **more: Any) -> Any:
    async with asyncio.timeout(BOUND_S):
        return await client.call_tool("drop", {"what": what, **more})


@both_eras
async def test_what_a_person_agreed_to_is_done_once(app: Any, mode: str) -> None:
    dropper, person = Dropper(), agreeing()
    async with in_memory(app, dropper, mode, person) as client:
        result = await drop(client)
    assert result.structured_content == {"done": "deleted", "jnid": "j1"}
    assert dropper.dropped == ["j1"]
    assert person.questions == ["Drop j1 with two photos?"]


@both_eras
@pytest.mark.parametrize("answer", [Person("decline"), Person("accept", {"confirm": False}), Person("accept", {})])
async def test_what_a_person_declined_is_not_done_and_no_error(app: Any, mode: str, answer: Person) -> None:
    dropper = Dropper()
    async with in_memory(app, dropper, mode, answer) as client:
        result = await drop(client)
    assert (result.is_error, result.structured_content) == (False, DECLINED)
    assert result.content[0].text == DECLINED["note"]
    assert dropper.dropped == []


@both_eras
async def test_a_question_put_aside_is_no_consent(app: Any, mode: str) -> None:
    dropper = Dropper()
    async with in_memory(app, dropper, mode, Person("cancel")) as client:
        result = await drop(client)
    assert result.structured_content["note"] == "Nothing was done: the person gave no answer."
    assert dropper.dropped == []


@both_eras
async def test_a_client_that_cannot_ask_leaves_it_to_the_agent(app: Any, mode: str) -> None:
    dropper = Dropper()
    async with in_memory(app, dropper, mode, None) as client:
        result = await drop(client)
        assert result.is_error
        text = result.content[0].text
        assert text.startswith("Drop j1 with two photos? Nothing was done yet: ask the person")
        assert "confirm: true" in text
        assert "[confirmation_needed, request request]" in text
        assert dropper.dropped == []
        assert (await drop(client, confirm=True)).structured_content["done"] == "deleted"
    assert dropper.dropped == ["j1"]


async def test_a_tool_that_cannot_say_that_nothing_was_done_says_it_as_an_error(app: Any) -> None:
    dropper = Dropper()
    face = face_of(app, dropper.spec(RECORD_OUTPUT))
    async with Client(face.server, mode=MODERN, elicitation_callback=Person("decline")) as client:
        result = await drop(client)
    assert (result.is_error, result.content[0].text) == (True, DECLINED["note"])


async def test_over_http_the_newer_protocol_asks_and_the_older_leaves_it_to_the_agent(app: Any) -> None:
    dropper, person = Dropper(), agreeing()
    async with over_http(face_of(app, dropper.spec()), mode=MODERN, elicitation_callback=person) as client:
        assert (await drop(client)).structured_content["done"] == "deleted"
    async with over_http(face_of(app, dropper.spec()), mode=LEGACY, elicitation_callback=person) as client:
        result = await drop(client)
    assert result.is_error
    assert "confirm: true" in result.content[0].text
    assert (dropper.dropped, len(person.questions)) == (["j1"], 1)


async def asked(client: Client, what: str, **more: Any) -> Any:
    """The raw result of one round, question or answer."""
    return await client.session.call_tool("drop", {"what": what}, allow_input_required=True, **more)


YES = {"confirm": ElicitResult(action="accept", content={"confirm": True})}


async def test_the_second_round_may_reach_another_process(app: Any) -> None:
    one, other = Dropper(), Dropper()
    async with in_memory(app, one, MODERN, agreeing()) as client:
        question = await asked(client, "j1")
        assert isinstance(question, InputRequiredResult)
    async with in_memory(app, other, MODERN, agreeing()) as client:
        result = await asked(client, "j1", input_responses=YES, request_state=question.request_state)
    assert result.structured_content["done"] == "deleted"
    assert (one.dropped, other.dropped) == ([], ["j1"])


async def test_an_answer_to_one_question_confirms_no_other(app: Any) -> None:
    dropper = Dropper()
    async with in_memory(app, dropper, MODERN, agreeing()) as client:
        question = await asked(client, "j1")
        again = await asked(client, "j2", input_responses=YES)
        assert isinstance(again, InputRequiredResult)
        for state in (question.request_state, "made up", ""):
            with pytest.raises(MCPError) as refused:
                await asked(client, "j2", input_responses=YES, request_state=state)
            assert refused.value.error.code == INVALID_PARAMS
            assert refused.value.error.data == {"reason": "invalid_request_state"}
        altered = question.request_state + "0"
        assert isinstance(await asked(client, "j1", input_responses=YES, request_state=altered), InputRequiredResult)
        dropper.stands_for = "two hundred photos"
        again = await asked(client, "j1", input_responses=YES, request_state=question.request_state)
        assert isinstance(again, InputRequiredResult), "the question has another meaning now"
        nothing = await asked(client, "j1", input_responses={}, request_state=again.request_state)
        assert isinstance(nothing, InputRequiredResult)
        assert dropper.dropped == []
        done = await asked(client, "j1", input_responses=YES, request_state=again.request_state)
    assert (done.structured_content["done"], dropper.dropped) == ("deleted", ["j1"])


async def test_over_stdio_both_protocols_ask(tmp_path: Path) -> None:
    async def with_a_process_of_its_own(mode: str) -> None:
        person = agreeing()
        server = StdioServerParameters(
            command=sys.executable,
            args=[str(SUPPORT / "asking_stdio.py"), str(tmp_path / mode)],
            env={"PYTHONPATH": str(SUPPORT)},
        )
        async with Client(server, mode=mode, elicitation_callback=person) as client:
            result = await drop(client)
            assert result.structured_content == {"done": "deleted", "jnid": "j1"}
            person.answer = ElicitResult(action="decline")
            assert (await drop(client)).structured_content == DECLINED
        assert person.questions == ["Drop j1 with two photos?"] * 2

    await asyncio.gather(with_a_process_of_its_own(MODERN), with_a_process_of_its_own(LEGACY))


async def test_a_client_of_an_older_protocol_that_breaks_its_word_leaves_it_to_the_agent(app: Any) -> None:
    dropper = Dropper()

    async def refuses(context: Any, params: Any) -> ErrorData:
        return ErrorData(code=-32603, message="no screen")

    async with Client(face_of(app, dropper.spec()).server, mode=LEGACY, elicitation_callback=refuses) as client:
        result = await drop(client)
    assert result.is_error
    assert "confirm: true" in result.content[0].text
    assert dropper.dropped == []

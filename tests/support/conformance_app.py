"""The real server with the fixtures that the protocol's conformance suite looks for; run as a process by its tests.

Arguments: the port, and a directory for what the server keeps. The app is the one `serve` runs, from the same factory
and behind the same middleware, over a simulated JobNimbus; the fixtures are handed to its MCP face as extras. Their
names, texts and shapes are the suite's.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import uvicorn
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.shared.exceptions import MCPError
from mcp.types import (
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    AudioContent,
    BlobResourceContents,
    CallToolRequestParams,
    CallToolResult,
    CompleteRequestParams,
    CompleteResult,
    Completion,
    CreateMessageRequest,
    CreateMessageRequestParams,
    CreateMessageResult,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    EmbeddedResource,
    EmptyResult,
    GetPromptRequestParams,
    GetPromptResult,
    ImageContent,
    InputRequiredResult,
    InputResponse,
    ListRootsRequest,
    ListRootsResult,
    Prompt,
    PromptArgument,
    PromptMessage,
    PromptReference,
    ReadResourceRequestParams,
    ReadResourceResult,
    Resource,
    ResourceTemplate,
    SamplingMessage,
    SetLevelRequestParams,
    SubscribeRequestParams,
    TextContent,
    TextResourceContents,
    Tool,
    UnsubscribeRequestParams,
)

from jobnimbus_mcp.app import Overrides, build
from jobnimbus_mcp.settings import Settings
from jobnimbus_mcp.simulator import Simulator
from jobnimbus_mcp.tools.extras_mcp import Extras
from jobnimbus_mcp.tools.requests_mcp import Ctx, capabilities_of

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="
WAV = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAA="

Fixture = Callable[[Ctx, CallToolRequestParams], Awaitable[Any]]
Schema = dict[str, Any]

NOTHING: Schema = {"type": "object", "properties": {}}
EMBEDDED = TextResourceContents(uri="test://embedded-resource", mime_type="text/plain", text="An embedded resource.")
MIXED = TextResourceContents(uri="test://mixed-content-resource", mime_type="application/json", text='{"test": "data"}')

FIXTURES: dict[str, tuple[Schema, Fixture]] = {}


def fixture(schema: Schema = NOTHING) -> Callable[[Fixture], Fixture]:
    """A tool of the function's own name."""

    def kept(made: Fixture) -> Fixture:
        FIXTURES[made.__name__] = (schema, made)
        return made

    return kept


def told(text: str) -> CallToolResult:
    return CallToolResult(content=[TextContent(type="text", text=text)])


def taking(**properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(properties)}


# -- what a result can hold ------------------------------------------------------------------------


@fixture()
async def test_simple_text(ctx: Ctx, params: CallToolRequestParams) -> Any:
    return told("This is a simple text response for testing.")


@fixture()
async def test_image_content(ctx: Ctx, params: CallToolRequestParams) -> Any:
    return CallToolResult(content=[ImageContent(type="image", data=PNG, mime_type="image/png")])


@fixture()
async def test_audio_content(ctx: Ctx, params: CallToolRequestParams) -> Any:
    return CallToolResult(content=[AudioContent(type="audio", data=WAV, mime_type="audio/wav")])


@fixture()
async def test_embedded_resource(ctx: Ctx, params: CallToolRequestParams) -> Any:
    return CallToolResult(content=[EmbeddedResource(type="resource", resource=EMBEDDED)])


@fixture()
async def test_multiple_content_types(ctx: Ctx, params: CallToolRequestParams) -> Any:
    return CallToolResult(
        content=[
            TextContent(type="text", text="Multiple content types test:"),
            ImageContent(type="image", data=PNG, mime_type="image/png"),
            EmbeddedResource(type="resource", resource=MIXED),
        ]
    )


@fixture()
async def test_error_handling(ctx: Ctx, params: CallToolRequestParams) -> Any:
    return CallToolResult(
        content=[TextContent(type="text", text="This tool intentionally returns an error for testing")], is_error=True
    )


@fixture()
async def test_tool_with_progress(ctx: Ctx, params: CallToolRequestParams) -> Any:
    for done in (0, 50, 100):
        await ctx.session.report_progress(done, 100, f"Completed step {done} of 100")
        await asyncio.sleep(0.05)
    return told(str((ctx.meta or {}).get("progress_token", 0)))


async def logged(ctx: Ctx, params: CallToolRequestParams) -> Any:
    for text in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await ctx.session.send_log_message("info", text, related_request_id=ctx.request_id)
        await asyncio.sleep(0.05)
    return told("Tool with logging executed successfully")


FIXTURES["test_tool_with_logging"] = FIXTURES["test_logging_tool"] = (NOTHING, logged)


@fixture(
    {
        "type": "object",
        "properties": {"value": {"type": "string", "x-mcp-header": "Test-Value"}},
        "required": ["value"],
    }
)
async def test_custom_header(ctx: Ctx, params: CallToolRequestParams) -> Any:
    return told(f"value={(params.arguments or {}).get('value')}")


FIXTURES["json_schema_2020_12_tool"] = (
    {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {
            "address": {
                "$anchor": "addressDef",
                "type": "object",
                "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
            }
        },
        "properties": {
            "name": {"type": "string"},
            "address": {"$ref": "#/$defs/address"},
            "contactMethod": {"type": "string", "enum": ["phone", "email"]},
            "phone": {"type": "string"},
            "email": {"type": "string"},
        },
        "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
        "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
        "then": {"required": ["phone"]},
        "else": {"required": ["email"]},
        "additionalProperties": False,
    },
    test_simple_text,
)


# -- asking the client, by requests ----------------------------------------------------------------


@fixture(taking(prompt={"type": "string"}))
async def test_sampling(ctx: Ctx, params: CallToolRequestParams) -> Any:
    asked = SamplingMessage(role="user", content=TextContent(type="text", text=(params.arguments or {})["prompt"]))
    answer = await ctx.session.create_message([asked], max_tokens=100, related_request_id=ctx.request_id)
    return told(f"LLM response: {getattr(answer.content, 'text', 'No response')}")


async def elicited(ctx: Ctx, message: str, properties: Schema, says: str) -> CallToolResult:
    schema = {"type": "object", "properties": properties, "required": []}
    answer = await ctx.session.elicit_form(message, schema, ctx.request_id)
    return told(f"{says}: action={answer.action}, content={answer.content or {}}")


@fixture(taking(message={"type": "string"}))
async def test_elicitation(ctx: Ctx, params: CallToolRequestParams) -> Any:
    message = (params.arguments or {})["message"]
    return await elicited(ctx, message, {"response": {"type": "string"}}, "User response")


@fixture()
async def test_elicitation_sep1034_defaults(ctx: Ctx, params: CallToolRequestParams) -> Any:
    properties: Schema = {
        "name": {"type": "string", "default": "John Doe"},
        "age": {"type": "integer", "default": 30},
        "score": {"type": "number", "default": 95.5},
        "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
        "verified": {"type": "boolean", "default": True},
    }
    return await elicited(ctx, "Please provide user information", properties, "Elicitation result")


@fixture()
async def test_elicitation_sep1330_enums(ctx: Ctx, params: CallToolRequestParams) -> Any:
    options = ["option1", "option2", "option3"]
    titled = [{"const": f"value{n}", "title": title} for n, title in enumerate(("First", "Second", "Third"), 1)]
    properties: Schema = {
        "untitledSingle": {"type": "string", "enum": options},
        "titledSingle": {"type": "string", "oneOf": titled},
        "legacyEnum": {"type": "string", "enum": ["opt1", "opt2"], "enumNames": ["Option One", "Option Two"]},
        "untitledMulti": {"type": "array", "items": {"type": "string", "enum": options}},
        "titledMulti": {"type": "array", "items": {"anyOf": titled}},
    }
    return await elicited(ctx, "Please select values", properties, "Elicitation completed")


# -- asking the client, by answers -----------------------------------------------------------------


def form(message: str, name: str, kind: str = "string") -> ElicitRequest:
    schema = {"type": "object", "properties": {name: {"type": kind}}, "required": [name]}
    return ElicitRequest(params=ElicitRequestFormParams(message=message, requested_schema=schema))


def sample(text: str, tokens: int) -> CreateMessageRequest:
    message = SamplingMessage(role="user", content=TextContent(type="text", text=text))
    return CreateMessageRequest(params=CreateMessageRequestParams(messages=[message], max_tokens=tokens))


NAME = form("What is your name?", "name")


def response(params: Any, key: str, kind: type[Any]) -> Any:
    found: InputResponse | None = (params.input_responses or {}).get(key)
    return found if isinstance(found, kind) else None


@fixture()
async def test_input_required_result_elicitation(ctx: Ctx, params: CallToolRequestParams) -> Any:
    answer = response(params, "user_name", ElicitResult)
    if answer is None or not isinstance((answer.content or {}).get("name"), str):
        return InputRequiredResult(input_requests={"user_name": NAME})
    return told(f"Hello, {answer.content['name']}!")


FIXTURES["test_streaming_elicitation"] = FIXTURES["test_input_required_result_elicitation"]


@fixture()
async def test_input_required_result_sampling(ctx: Ctx, params: CallToolRequestParams) -> Any:
    answer = response(params, "capital_question", CreateMessageResult)
    if answer is None:
        return InputRequiredResult(input_requests={"capital_question": sample("What is the capital of France?", 100)})
    return told(answer.content.text)


@fixture()
async def test_input_required_result_list_roots(ctx: Ctx, params: CallToolRequestParams) -> Any:
    answer = response(params, "client_roots", ListRootsResult)
    if answer is None:
        return InputRequiredResult(input_requests={"client_roots": ListRootsRequest()})
    return told(", ".join(str(root.uri) for root in answer.roots))


async def confirmed(ctx: Ctx, params: CallToolRequestParams) -> Any:
    """Its state is sealed and opened by the SDK's own middleware, which refuses one that was tampered with."""
    if params.request_state is None or response(params, "confirm", ElicitResult) is None:
        asked = form("Please confirm", "ok", "boolean")
        return InputRequiredResult(input_requests={"confirm": asked}, request_state="asked")
    return told("state-ok")


for name in ("test_input_required_result_request_state", "test_input_required_result_tampered_state"):
    FIXTURES[name] = (NOTHING, confirmed)


@fixture()
async def test_input_required_result_multiple_inputs(ctx: Ctx, params: CallToolRequestParams) -> Any:
    asked = {"user_name": NAME, "greeting": sample("Generate a greeting", 50), "client_roots": ListRootsRequest()}
    if set(asked) <= set(params.input_responses or ()) and params.request_state == "several":
        return told("all came")
    return InputRequiredResult(input_requests=asked, request_state="several")


@fixture()
async def test_input_required_result_multi_round(ctx: Ctx, params: CallToolRequestParams) -> Any:
    if params.request_state == "round 2" and response(params, "step2", ElicitResult) is not None:
        return told("done")
    if params.request_state == "round 1" and response(params, "step1", ElicitResult) is not None:
        asked = form("Step 2: What is your favorite color?", "color")
        return InputRequiredResult(input_requests={"step2": asked}, request_state="round 2")
    return InputRequiredResult(input_requests={"step1": NAME}, request_state="round 1")


@fixture()
async def test_input_required_result_capabilities(ctx: Ctx, params: CallToolRequestParams) -> Any:
    can = capabilities_of(ctx)
    asked: dict[str, Any] = {}
    if can.sampling is not None:
        asked["question"] = sample("What is the capital of France?", 100)
    if can.elicitation is not None:
        asked["user_name"] = NAME
    return InputRequiredResult(input_requests=asked) if asked else told("this client can be asked nothing")


@fixture()
async def test_missing_capability(ctx: Ctx, params: CallToolRequestParams) -> Any:
    if capabilities_of(ctx).sampling is None:
        raise MCPError(
            MISSING_REQUIRED_CLIENT_CAPABILITY,
            "This tool needs sampling.",
            data={"requiredCapabilities": {"sampling": {}}},
        )
    return told("sampling is there")


async def call_tool(ctx: Ctx, params: CallToolRequestParams) -> Any:
    found = FIXTURES.get(params.name)
    return None if found is None else await found[1](ctx, params)


# -- resources and prompts -------------------------------------------------------------------------

TEXTS = {
    "test://static-text": "This is the content of the static text resource.",
    "test://watched-resource": "Watched resource content",
}
BINARY = "test://static-binary"


async def read_resource(ctx: Ctx, params: ReadResourceRequestParams) -> Any:
    uri = str(params.uri)
    if uri == BINARY:
        return ReadResourceResult(contents=[BlobResourceContents(uri=uri, mime_type="image/png", blob=PNG)])
    text = TEXTS.get(uri)
    if uri.startswith("test://template/") and uri.endswith("/data"):
        text = f'{{"id": "{uri.split("/")[3]}", "templateTest": true, "data": "Data for ID: {uri.split("/")[3]}"}}'
    if text is None:
        return None
    return ReadResourceResult(contents=[TextResourceContents(uri=uri, mime_type="text/plain", text=text)])


def message(content: Any) -> PromptMessage:
    return PromptMessage(role="user", content=content)


def says(text: str) -> PromptMessage:
    return message(TextContent(type="text", text=text))


async def get_prompt(ctx: Ctx, params: GetPromptRequestParams) -> Any:
    given = params.arguments or {}
    match params.name:
        case "test_simple_prompt":
            messages = [says("This is a simple prompt for testing.")]
        case "test_prompt_with_arguments":
            messages = [says(f"Prompt with arguments: arg1='{given.get('arg1')}', arg2='{given.get('arg2')}'")]
        case "test_prompt_with_embedded_resource":
            held = TextResourceContents(uri=given["resourceUri"], mime_type="text/plain", text="Embedded content.")
            messages = [message(EmbeddedResource(type="resource", resource=held)), says("Process it.")]
        case "test_prompt_with_image":
            messages = [message(ImageContent(type="image", data=PNG, mime_type="image/png")), says("Analyze it.")]
        case "test_input_required_result_prompt":
            answer = response(params, "user_context", ElicitResult)
            if answer is None:
                asked = form("What context should the prompt use?", "context")
                return InputRequiredResult(input_requests={"user_context": asked})
            messages = [says(f"In the context {answer.content}")]
        case _:
            return None
    return GetPromptResult(description="A prompt for testing", messages=messages)


async def complete(ctx: Ctx, params: CompleteRequestParams) -> Any:
    if isinstance(params.ref, PromptReference) and params.ref.name == "test_prompt_with_arguments":
        return CompleteResult(completion=Completion(values=["paris", "park"], total=2, has_more=False))
    return None


async def acknowledged(ctx: Ctx, params: Any) -> EmptyResult:
    return EmptyResult()


def prompt(name: str, *arguments: str) -> Prompt:
    taken = [PromptArgument(name=one, description=f"The {one}", required=True) for one in arguments]
    return Prompt(name=name, description=f"Tests {name}", arguments=taken)


EXTRAS = Extras(
    tools=[Tool(name=name, description=f"Tests {name}", input_schema=schema) for name, (schema, _) in FIXTURES.items()],
    resources=[
        Resource(uri=uri, name=uri.removeprefix("test://"), description="A resource for testing")
        for uri in (*TEXTS, BINARY)
    ],
    templates=[ResourceTemplate(uri_template="test://template/{id}/data", name="template", description="By id")],
    prompts=[
        prompt("test_simple_prompt"),
        prompt("test_prompt_with_arguments", "arg1", "arg2"),
        prompt("test_prompt_with_embedded_resource", "resourceUri"),
        prompt("test_prompt_with_image"),
        prompt("test_input_required_result_prompt"),
    ],
    handlers={
        "tools/call": call_tool,
        "resources/read": read_resource,
        "prompts/get": get_prompt,
        "completion/complete": complete,
        "logging/setLevel": acknowledged,
        "resources/subscribe": acknowledged,
        "resources/unsubscribe": acknowledged,
    },
    methods={
        "logging/setLevel": SetLevelRequestParams,
        "resources/subscribe": SubscribeRequestParams,
        "resources/unsubscribe": UnsubscribeRequestParams,
    },
    middleware=[RequestStateBoundary(RequestStateSecurity.ephemeral(), default_audience="conformance")],
    sessions=True,
)


def main(port: int, data_dir: str) -> None:
    simulator = Simulator()
    settings = {
        "JOBNIMBUS_API_BASE_URL": "http://sim/api1",
        "JOBNIMBUS_INSTANCES": "stamford",
        "JOBNIMBUS_API_KEY": simulator.keys["stamford"][0],
        "ALLOWED_HOSTS": "localhost,127.0.0.1",
        "DATA_DIR": data_dir,
        "LOG_LEVEL": "error",
    }
    app = build(
        Settings.from_env({**settings, **{name: os.environ[name] for name in ("LOG_LEVEL",) if name in os.environ}}),
        Overrides(upstream_transport=httpx.ASGITransport(simulator.app), extras=EXTRAS),
    )
    uvicorn.run(app.asgi, host="127.0.0.1", port=port, http="httptools", ws="none", log_config=None, access_log=False)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])

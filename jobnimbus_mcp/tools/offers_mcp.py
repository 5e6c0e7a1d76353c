"""What there is besides tools, as the protocol asks for it: resources, prompts, and completions for both."""

from __future__ import annotations

from mcp.types import (
    CompleteRequestParams,
    CompleteResult,
    Completion,
    GetPromptRequestParams,
    GetPromptResult,
    ListPromptsResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    PaginatedRequestParams,
    PromptReference,
    ReadResourceRequestParams,
    ReadResourceResult,
    ResourceTemplate,
    TextContent,
    TextResourceContents,
)
from mcp.types import Prompt as PromptShown
from mcp.types import PromptArgument as ArgumentShown
from mcp.types import PromptMessage as Message
from mcp.types import Resource as ResourceShown

from jobnimbus_mcp.errors import InvalidInput, ProjectError
from jobnimbus_mcp.gateway.identity import Identities
from jobnimbus_mcp.tools.completions import COMPLETE, Completed, Completions
from jobnimbus_mcp.tools.prompts import GET_PROMPT, Prompt, Prompts
from jobnimbus_mcp.tools.refusals_mcp import refusal
from jobnimbus_mcp.tools.requests_mcp import LISTS_TTL_MS, Calls, Ctx, access_of, proof_of, scope_of
from jobnimbus_mcp.tools.resources import MIME_TYPE, READ, Proof, Resources

__all__ = ["CACHE_META", "Offers"]

CACHE_META = "jobnimbus-mcp/cache"


class Offers:
    """Handlers for the SDK's server."""

    def __init__(
        self, resources: Resources, prompts: Prompts, completions: Completions, identities: Identities, calls: Calls
    ) -> None:
        self._resources = resources
        self._prompts = prompts
        self._completions = completions
        self._identities = identities
        self._calls = calls

    async def list_resources(self, ctx: Ctx, params: PaginatedRequestParams | None) -> ListResourcesResult:
        """What is there once per account; records are as many as there are: the templates tell."""
        shown = [
            ResourceShown(uri=one.uri, name=one.name, title=one.title, description=one.description, mime_type=MIME_TYPE)
            for one in self._resources.listed(proof_of(ctx))
        ]
        return ListResourcesResult(resources=shown, ttl_ms=LISTS_TTL_MS, cache_scope="private")

    async def list_templates(self, ctx: Ctx, params: PaginatedRequestParams | None) -> ListResourceTemplatesResult:
        access = access_of(ctx)
        shown = [
            ResourceTemplate(
                uri_template=one.uri_template,
                name=one.name,
                title=one.title,
                description=one.description,
                mime_type=MIME_TYPE,
            )
            for one in self._resources.templates(access)
        ]
        return ListResourceTemplatesResult(resource_templates=shown, ttl_ms=LISTS_TTL_MS, cache_scope=scope_of(access))

    async def read(self, ctx: Ctx, params: ReadResourceRequestParams) -> ReadResourceResult:
        call = self._calls.begin(ctx, READ)
        uri = str(params.uri)
        try:
            answer = await self._resources.read(uri, self._resources.caller(uri, proof_of(ctx)), call)
        except ProjectError as error:
            raise refusal(error, call.request_id, uri) from error
        return ReadResourceResult(
            contents=[TextResourceContents(uri=uri, mime_type=MIME_TYPE, text=answer.data.decode())],
            ttl_ms=int(answer.cache["ttlSeconds"] * 1000),
            cache_scope="private",
            _meta={CACHE_META: answer.cache},
        )

    async def list_prompts(self, ctx: Ctx, params: PaginatedRequestParams | None) -> ListPromptsResult:
        access = access_of(ctx)
        shown = [_shown(prompt) for prompt in self._prompts.listed(access)]
        return ListPromptsResult(prompts=shown, ttl_ms=LISTS_TTL_MS, cache_scope=scope_of(access))

    async def get_prompt(self, ctx: Ctx, params: GetPromptRequestParams) -> GetPromptResult:
        call = self._calls.begin(ctx, GET_PROMPT)
        try:
            who = self._resources.anyone(proof_of(ctx))
            made = await self._prompts.get(params.name, params.arguments or {}, who, call)
        except ProjectError as error:
            raise refusal(error, call.request_id) from error
        messages = [Message(role="user", content=TextContent(type="text", text=text)) for text in made.messages]
        return GetPromptResult(description=made.description, messages=messages)

    async def complete(self, ctx: Ctx, params: CompleteRequestParams) -> CompleteResult:
        call = self._calls.begin(ctx, COMPLETE)
        proof = proof_of(ctx)
        known = (params.context.arguments if params.context is not None else None) or {}
        try:
            kind = self._kind(params, proof)
            if kind == "instance":
                told = self._completions.instances(params.argument.value, self._identities.instances, proof.access)
            elif kind == "":
                told = Completed((), 0, False)
            else:
                named = Proof(proof.api_key, known.get("instance", proof.instance), proof.access)
                told = await self._completions.complete(
                    kind, params.argument.value, self._resources.anyone(named), call
                )
        except ProjectError as error:
            raise refusal(error, call.request_id) from error
        return CompleteResult(completion=Completion(values=list(told.values), total=told.total, has_more=told.has_more))

    def _kind(self, params: CompleteRequestParams, proof: Proof) -> str:
        """What is completed; "" where nothing can be offered.

        Raises:
            InvalidInput: no such prompt or template, or it has no such argument.
        """
        name = params.argument.name
        if isinstance(params.ref, PromptReference):
            prompt = self._prompts.named(params.ref.name, proof.access)
            found = {argument.name: argument.completes for argument in prompt.arguments}
        else:
            uri = str(params.ref.uri)
            template = next((one for one in self._resources.templates(proof.access) if one.uri_template == uri), None)
            if template is None:
                raise InvalidInput("There is no resource template of this URI.", field="ref")
            found = {**({"jnid": ""} if "{jnid}" in uri else {}), **template.variables}
        if name not in found:
            raise InvalidInput(f"There is no argument {name[:60]!r}. There are: {', '.join(found)}.", field="argument")
        return found[name]


def _shown(prompt: Prompt) -> PromptShown:
    return PromptShown(
        name=prompt.name,
        title=prompt.title,
        description=prompt.description,
        arguments=[
            ArgumentShown(name=one.name, title=one.title, description=one.description, required=one.required)
            for one in prompt.arguments
        ],
    )

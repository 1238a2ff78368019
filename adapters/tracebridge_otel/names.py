"""The attribute names that spans are sent with, in one table.

The GenAI names are those of `open-telemetry/semantic-conventions-genai` as of November 2026. That repository
has no release yet, and the constants of the `opentelemetry-semantic-conventions` package are older and
deprecated, so the names stand here. `session.id`, `user.id`, `deployment.environment.name`, `service.version`
and `error.type` are of the main conventions, version 1.42.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tracebridge.span import SpanKind

OPERATION: Final = "gen_ai.operation.name"
OPERATIONS: Final[Mapping[SpanKind, str]] = {"turn": "invoke_agent", "llm": "chat", "tool": "execute_tool"}
"""The kinds of span that the conventions have an operation for."""

CONVERSATION_ID: Final = "gen_ai.conversation.id"
SESSION_ID: Final = "session.id"
INPUT_MESSAGES: Final = "gen_ai.input.messages"
OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
TOOL_DEFINITIONS: Final = "gen_ai.tool.definitions"
TOOL_NAME: Final = "gen_ai.tool.name"
TOOL_ARGUMENTS: Final = "gen_ai.tool.call.arguments"
TOOL_RESULT: Final = "gen_ai.tool.call.result"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
PROMPT_NAME: Final = "gen_ai.prompt.name"
ERROR_TYPE: Final = "error.type"
OTHER_ERROR: Final = "_OTHER"
"""The conventions' value of `error.type` where no better one is known."""

USER_ID: Final = "user.id"
AGENT_NAME: Final = "gen_ai.agent.name"
ENVIRONMENT: Final = "deployment.environment.name"
RELEASE: Final = "service.version"
MODEL: Final = "gen_ai.request.model"
RESPONSE_MODEL: Final = "gen_ai.response.model"
PROVIDER: Final = "gen_ai.provider.name"
RESPONSE_ID: Final = "gen_ai.response.id"
TOOL_CALL_ID: Final = "gen_ai.tool.call.id"
FINGERPRINT: Final = "tracebridge.fingerprint"

TEXTS: Final[Mapping[str, str]] = {
    "session_id": SESSION_ID,
    "user_id": USER_ID,
    "agent_name": AGENT_NAME,
    "environment": ENVIRONMENT,
    "release": RELEASE,
    "model": MODEL,
    "response_model": RESPONSE_MODEL,
    "provider": PROVIDER,
    "response_id": RESPONSE_ID,
    "tool_call_id": TOOL_CALL_ID,
    "fingerprint": FINGERPRINT,
}
"""Fields of a span that are a text, and the attribute that each is."""

USAGE: Final[Mapping[str, str]] = {
    "input": "gen_ai.usage.input_tokens",
    "output": "gen_ai.usage.output_tokens",
    "cache_read": "gen_ai.usage.cache_read.input_tokens",
    "cache_write": "gen_ai.usage.cache_write.input_tokens",
    "reasoning": "gen_ai.usage.reasoning.output_tokens",
}
"""What `tracebridge.usage` counts, and the attribute that each count is."""

PARAMETERS: Final[Mapping[str, tuple[str, type[int] | type[float] | type[bool]]]] = {
    "temperature": ("gen_ai.request.temperature", float),
    "top_p": ("gen_ai.request.top_p", float),
    "top_k": ("gen_ai.request.top_k", float),
    "frequency_penalty": ("gen_ai.request.frequency_penalty", float),
    "presence_penalty": ("gen_ai.request.presence_penalty", float),
    "max_tokens": ("gen_ai.request.max_tokens", int),
    "seed": ("gen_ai.request.seed", int),
    "n": ("gen_ai.request.choice.count", int),
    "stream": ("gen_ai.request.stream", bool),
}
"""Model parameters that the conventions name, with the type that they give them."""

OUTCOME: Final = "tracebridge.outcome"
TAGS: Final = "tracebridge.tags"
COST: Final = "tracebridge.cost.usd"
PROMPT_VERSION: Final = "tracebridge.prompt.version"
METADATA_PREFIX: Final = "tracebridge.metadata."
REMAINDER: Final = "tracebridge.remainder"

FORM: Final = "tracebridge.form"
"""On a message, part, call or tool definition: what it was before, where its shape alone does not tell."""
VERBATIM: Final = "tracebridge.verbatim"
"""The type of a message part that holds a JSON value as it was recorded."""

_TAKEN: Final = ("gen_ai.", "tracebridge.", "openinference.")


def is_taken(name: str) -> bool:
    """Whether spans have, or may have, an attribute of this name, so that nobody else may give it a value."""
    return name.startswith(_TAKEN) or name in (*TEXTS.values(), ERROR_TYPE)

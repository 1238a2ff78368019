"""Every name of LangFuse's that the adapter writes or reads, as LangFuse 4.16 has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tracebridge.span import SpanKind

# OTLP attributes

TYPE: Final = "langfuse.observation.type"
LEVEL: Final = "langfuse.observation.level"
STATUS_MESSAGE: Final = "langfuse.observation.status_message"
INPUT: Final = "langfuse.observation.input"
OUTPUT: Final = "langfuse.observation.output"
MODEL: Final = "langfuse.observation.model.name"
MODEL_PARAMETERS: Final = "langfuse.observation.model.parameters"
USAGE_DETAILS: Final = "langfuse.observation.usage_details"
COST_DETAILS: Final = "langfuse.observation.cost_details"
COMPLETION_START: Final = "langfuse.observation.completion_start_time"
PROMPT_NAME: Final = "langfuse.observation.prompt.name"
PROMPT_VERSION: Final = "langfuse.observation.prompt.version"
METADATA: Final = "langfuse.observation.metadata."
TRACE_NAME: Final = "langfuse.trace.name"
TAGS: Final = "langfuse.trace.tags"
USER: Final = "user.id"
SESSION: Final = "session.id"
RELEASE: Final = "langfuse.release"
VERSION: Final = "langfuse.version"
ENVIRONMENT: Final = "langfuse.environment"
IS_APP_ROOT: Final = "langfuse.internal.is_app_root"

SCOPE: Final = "langfuse-sdk-tracebridge"
"""The server copies every attribute into the metadata again unless the scope's name starts with
`langfuse-sdk`, which is how it tells senders that already speak its attributes from those that do not."""

INGESTION_VERSION: Final = {"x-langfuse-ingestion-version": "4"}

DEFAULT_TRACE_NAME: Final = "agent"
"""The trace name of spans whose agent has no name."""
DEFAULT_ENVIRONMENT: Final = "default"
"""What the server calls the environment of spans that name none."""

# Observation types

TYPES: Final[Mapping[SpanKind, str]] = {
    "session": "chain",
    "turn": "agent",
    "llm": "generation",
    "tool": "tool",
    "thinking": "span",
    "event": "event",
}
"""One type for each kind, so that the type alone tells the kind."""

KINDS: Final[Mapping[str, SpanKind]] = {type_.upper(): kind for kind, type_ in TYPES.items()}
FOREIGN_KINDS: Final[Mapping[str, SpanKind]] = {
    "GENERATION": "llm",
    "EMBEDDING": "llm",
    "AGENT": "turn",
    "TOOL": "tool",
    "RETRIEVER": "tool",
}
"""What other senders' observations are taken for; any other type is an event."""

# Metadata

VERSION_KEY: Final = "version"
"""The entry of the session's metadata that LangFuse's version is, too."""

REMAINDER: Final = "tracebridge"
"""The metadata key of the remainder; it is also tracebridge's mark."""

METADATA_KEYS: Final[Mapping[str, str]] = {
    "run_id": "run.id",
    "turn": "turn.number",
    "extent": "span.extent",
    "provider": "llm.provider",
    "response_model": "llm.response_model",
    "finish_reason": "llm.finish_reason",
    "response_id": "llm.response_id",
    "tool_definitions": "llm.tools",
    "tool_call_id": "tool.call_id",
}
"""Span fields that LangFuse has no field for and that a reader of the page wants to see or filter by."""

METADATA_ABSENT: Final[Mapping[str, object]] = {"turn": 0, "extent": "whole", "tool_definitions": []}
"""The values of these fields that are not sent; empty text is not sent either."""

ERROR_TYPE: Final = "error.type"
OWN_METADATA_KEYS: Final = frozenset({REMAINDER, ERROR_TYPE, *METADATA_KEYS.values()})

SERVER_METADATA: Final = ("attributes", "resourceAttributes", "scope")
"""Metadata keys, alone or before a dot, that the server writes itself."""

MISREAD_METADATA: Final = (
    *("langfuse_", "__", "constructor", "prototype", "toString", "toLocaleString", "valueOf"),
    *("hasOwnProperty", "isPrototypeOf", "propertyIsEnumerable"),
)
"""Beginnings of metadata keys that the server takes for something else, or that JavaScript does."""

MISREAD_INSIDE: Final = ("__proto__", "constructor", "prototype")
"""The same of keys inside a metadata value."""

TOOLS: Final = "tools"
"""A metadata key whose value, if it is a list of tool definitions, the server moves into the input."""

MEDIA_MARK: Final = ";base64,"
"""Where this stands in a value, a server that stores media by itself may put a reference in its place."""

# Usage

USAGE_INPUT: Final = "input"
USAGE_CACHE_READ: Final = "input_cached_tokens"
USAGE_CACHE_WRITE: Final = "input_cache_creation"
USAGE_CACHE_WRITE_1H: Final = "input_cache_creation_1h"
USAGE_OUTPUT: Final = "output"
USAGE_REASONING: Final = "output_reasoning_tokens"
USAGE_TOTAL: Final = "total"
USAGE_PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "input": (USAGE_INPUT, USAGE_CACHE_READ, USAGE_CACHE_WRITE, USAGE_CACHE_WRITE_1H),
    "output": (USAGE_OUTPUT, USAGE_REASONING),
    "cache_read": (USAGE_CACHE_READ,),
    "cache_write": (USAGE_CACHE_WRITE, USAGE_CACHE_WRITE_1H),
    "cache_write_1h": (USAGE_CACHE_WRITE_1H,),
    "reasoning": (USAGE_REASONING,),
    "total": (USAGE_TOTAL,),
}
"""By meaning, as `tracebridge.usage` has them. LangFuse's usage keys exclude each other, so that the price of
each key adds up. These are the keys that have a price in its list for OpenAI's, Anthropic's and Google's models
alike, but for reasoning of Anthropic's, which reports none."""

# Reading

FIELD_GROUPS: Final = "core,basic,time,io,metadata,model,usage,prompt,trace_context"
"""`io` is among them for the metadata too, whose values are otherwise cut to 200 characters."""
ID_FIELD_GROUPS: Final = "core,basic"

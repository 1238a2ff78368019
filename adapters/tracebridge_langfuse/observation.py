"""What LangFuse answers, read back: one observation to one `Span`. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from tracebridge.event import Json
from tracebridge.span import Edge, Link, Prompt, Span, SpanError
from tracebridge_langfuse import names
from tracebridge_langfuse.payload import value_of
from tracebridge_langfuse.remainder import Remainder, from_metadata
from tracebridge_langfuse.usage_details import cost_of, usage_of

MS: Final = 1_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

OVERLAID: Final = ("metadata", "model_parameters", "usage")
"""Objects of which the remainder holds only the entries that LangFuse does not give back."""

_RECORDS: Final[Mapping[str, Any]] = {
    "error": SpanError | None,
    "prompt": Prompt | None,
    "links": tuple[Link, ...],
    "tags": tuple[str, ...],
}


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the v2 observations API, with one word for absent: the field's default."""

    id: str
    trace_id: str
    parent_id: str = ""
    type: str
    name: str = ""
    start_ms: int
    end_ms: int
    level: str = "DEFAULT"
    status_message: str = ""
    environment: str = ""
    is_root: bool = False
    completion_start_ms: int | None = None
    input: str | None = None
    output: str | None = None
    metadata: dict[str, Json] = {}
    model: str = ""
    model_parameters: dict[str, Json] = {}
    usage_details: dict[str, int] = {}
    cost_details: dict[str, float] = {}
    prompt_name: str = ""
    prompt_version: int | None = None
    user_id: str = ""
    session_id: str = ""
    trace_name: str = ""
    release: str = ""
    tags: tuple[str, ...] = ()


def observation_of(row: Mapping[str, Any]) -> Observation:
    """Read a row of the package's API client: by the client's names, and by the server's where it has none.

    Raises:
        ValueError: the row lacks an id or a time.
    """
    start_ms = _ms(row.get("start_time"))
    trace_id, span_id = _text(row, "trace_id"), _text(row, "id")
    if start_ms is None or not trace_id or not span_id:
        raise ValueError("an observation without id, trace id or start time")
    end_ms = _ms(row.get("end_time"))
    return Observation(
        id=span_id,
        trace_id=trace_id,
        parent_id=_text(row, "parent_observation_id"),
        type=_text(row, "type"),
        name=_text(row, "name"),
        start_ms=start_ms,
        end_ms=start_ms if end_ms is None else end_ms,
        level=_text(row, "level") or "DEFAULT",
        status_message=_text(row, "status_message"),
        environment=_text(row, "environment"),
        is_root=row.get("is_root_observation") is True,
        completion_start_ms=_ms(row.get("completion_start_time")),
        # always text over this API; an empty one stands for none
        input=_text(row, "input") or None,
        output=_text(row, "output") or None,
        metadata=_object(row, "metadata"),
        # 4.16 says `model`, later versions `providedModelName`
        model=_text(row, "model") or _text(row, "providedModelName"),
        model_parameters=_object(row, "model_parameters"),
        usage_details=_object(row, "usage_details"),
        cost_details=_object(row, "cost_details"),
        prompt_name=_text(row, "prompt_name"),
        prompt_version=row.get("prompt_version"),
        user_id=_text(row, "user_id"),
        session_id=_text(row, "session_id"),
        trace_name=_text(row, "trace_name"),
        release=_text(row, "release"),
        tags=tuple(row.get("tags") or ()),
    )


def span_of(observation: Observation) -> Span:
    """Read an observation as the span it was made from, or as much of one as a foreign observation tells."""
    remainder = from_metadata(observation.metadata.get(names.REMAINDER))
    if remainder is None:
        return _foreign(observation)
    values = told_fields(observation, remainder) | _told_contents(observation, remainder)
    for name, value in remainder.exact.items():
        if name in OVERLAID and type(value) is dict:
            values[name] = values[name] | value
        elif name in _RECORDS:
            try:
                values[name] = msgspec.convert(value, _RECORDS[name])
            except msgspec.ValidationError:
                return _foreign(observation)  # no mark of ours any more: somebody changed it
        elif name in values:
            values[name] = value
    return Span(
        **values,
        opened=_opened(observation, remainder),
        closed=_closed(observation, remainder),
        fingerprint=remainder.fingerprint,
    )


def told_fields(observation: Observation, remainder: Remainder) -> dict[str, Any]:
    """The fields of the span that LangFuse's own fields tell, but for its contents and its edges."""
    values = _common(observation)
    for field, key in names.METADATA_KEYS.items():
        values[field] = observation.metadata.get(key, names.METADATA_ABSENT.get(field, ""))
    beside = {*remainder.opened_shown, *remainder.closed_shown}
    return values | {
        "metadata": {key: value for key, value in _senders_metadata(observation).items() if key not in beside},
        "usage": usage_of(remainder.usage, remainder.usage_rest, observation.usage_details),
        "cost": cost_of(remainder.cost, observation.cost_details),
        # the server drops the link to a prompt that it does not know, so the remainder always has it
        "prompt": None,
        "links": (),
    }


def _told_contents(observation: Observation, remainder: Remainder) -> dict[str, Json]:
    source = None
    if not remainder.input_is_opened:
        source = value_of(observation.input, inverted="input" in remainder.inverted)
    answer = value_of(observation.output, inverted="output" in remainder.inverted)
    if names.KINDS.get(observation.type) == "llm":
        return {"input": source, **unfolded(answer)}
    return {"input": source, "output": answer, "tool_calls": [], "thinking": None}


def folded(output: Json, tool_calls: list[Json], thinking: Json) -> Json:
    """An LLM's answer as one value: its content, or with tool calls the message that LangFuse shows."""
    if not tool_calls and thinking is None:
        return output
    message: dict[str, Json] = {"role": "assistant", "content": output}
    if thinking is not None:
        message["reasoning_content"] = thinking
    if tool_calls:
        message["tool_calls"] = tool_calls
    return message


def unfolded(answer: Json) -> dict[str, Json]:
    """The way back from `folded`, as fields of the span."""
    if type(answer) is dict and answer.get("role") == "assistant" and "content" in answer:
        tool_calls, thinking = answer.get("tool_calls", []), answer.get("reasoning_content")
        if type(tool_calls) is list and folded(answer["content"], tool_calls, thinking) == answer:
            return {"output": answer["content"], "tool_calls": tool_calls, "thinking": thinking}
    return {"output": answer, "tool_calls": [], "thinking": None}


def milliseconds_text(ms: int) -> str:
    """A time as ISO 8601 in UTC with milliseconds, as LangFuse writes it."""
    moment = (_EPOCH + timedelta(milliseconds=ms)).replace(tzinfo=None)
    return moment.isoformat(timespec="milliseconds") + "Z"


def server_computed(observation: Observation, span: Span) -> tuple[str, ...]:
    """The fields of a span of ours that the server shows a value for though none was sent."""
    if not span.fingerprint:
        return ()
    shown = {"usage": bool(observation.usage_details), "cost": bool(observation.cost_details)}
    sent = {"usage": bool(span.usage), "cost": span.cost is not None}
    return tuple(field for field, is_shown in shown.items() if is_shown and not sent[field])


def is_servers_own(key: str) -> bool:
    """Whether the server itself writes the metadata key."""
    return key.partition(".")[0] in names.SERVER_METADATA


def _common(observation: Observation) -> dict[str, Any]:
    kind = names.KINDS.get(observation.type, "event")
    status = "error" if observation.level == "ERROR" else ("ok" if kind == "tool" else "unset")
    error = None
    if observation.status_message:
        error = SpanError(message=observation.status_message, type=observation.metadata.get(names.ERROR_TYPE))
    first_token_ms = observation.completion_start_ms
    return {
        "kind": kind,
        "trace_id": observation.trace_id,
        "span_id": observation.id,
        "parent_id": observation.parent_id,
        "remote_parent": observation.is_root and bool(observation.parent_id),
        "name": observation.name,
        "start_ns": observation.start_ms * MS,
        "end_ns": observation.end_ms * MS,
        "session_id": observation.session_id,
        "user_id": observation.user_id,
        "agent_name": "" if observation.trace_name == names.DEFAULT_TRACE_NAME else observation.trace_name,
        "environment": "" if observation.environment == names.DEFAULT_ENVIRONMENT else observation.environment,
        "release": observation.release,
        "tags": observation.tags,
        "model": observation.model,
        "model_parameters": observation.model_parameters,
        "time_to_first_token_ms": None if first_token_ms is None else first_token_ms - observation.start_ms,
        "status": status,
        "error": error,
    }


def _foreign(observation: Observation) -> Span:
    kind = names.FOREIGN_KINDS.get(observation.type, "event")
    answer = value_of(observation.output)
    prompt = None
    if observation.prompt_name and observation.prompt_version is not None:
        prompt = Prompt(name=observation.prompt_name, version=observation.prompt_version)
    return Span(
        **_common(observation)
        | (unfolded(answer) if kind == "llm" else {"output": answer})
        | {
            "kind": kind,
            "input": value_of(observation.input),
            "metadata": _senders_metadata(observation),
            "usage": dict(observation.usage_details),
            "cost": dict(observation.cost_details) or None,
            "prompt": prompt,
        }
    )


def _opened(observation: Observation, remainder: Remainder) -> Edge | None:
    edge = remainder.opened
    if edge is None:
        return None
    if remainder.input_is_opened:
        fields = value_of(observation.input)
        return msgspec.structs.replace(edge, fields=fields if type(fields) is dict else {})
    return _with_shown(edge, remainder.opened_shown, observation.metadata)


def _closed(observation: Observation, remainder: Remainder) -> Edge | None:
    edge = remainder.closed
    return None if edge is None else _with_shown(edge, remainder.closed_shown, observation.metadata)


def _with_shown(edge: Edge, keys: tuple[str, ...], metadata: Mapping[str, Json]) -> Edge:
    shown = {key: metadata[key] for key in keys if key in metadata}
    return msgspec.structs.replace(edge, fields=edge.fields | shown) if shown else edge


def _senders_metadata(observation: Observation) -> dict[str, Json]:
    return {
        key: value
        for key, value in observation.metadata.items()
        if key not in names.OWN_METADATA_KEYS and not is_servers_own(key)
    }


def _ms(moment: datetime | None) -> int | None:
    return None if moment is None else (moment - _EPOCH) // timedelta(milliseconds=1)


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    return str(value) if isinstance(value, str) else ""  # the level is an enum of texts


def _object(row: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = row.get(name)
    return value if type(value) is dict else {}

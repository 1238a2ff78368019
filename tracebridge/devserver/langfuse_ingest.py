"""What Langfuse 4.16 makes of an OTLP span: attributes to one row, without I/O.

Covered: the ``langfuse.*`` attributes, the GenAI names and the plain ``input.value`` kind of content.
Not covered: the other frameworks' spellings (Vercel AI SDK, Vertex, LiveKit, prompt events, ...).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any

from tracebridge.devserver.langfuse_tools import is_named_by_half_a_character, with_tools_moved
from tracebridge.devserver.otlp import ReceivedSpan, UnstorableError, js_number, json_text
from tracebridge.devserver.prices import Model, model_named, stored_cost, token_count
from tracebridge.devserver.store import Observation

Attributes = dict[str, Any]

_OBSERVATION_METADATA = "langfuse.observation.metadata"
_TRACE_METADATA = "langfuse.trace.metadata"
_MOST_MONTHS = 100
"""The table has a partition a month, and the database refuses an insert into more partitions than these."""
_LARGEST_SUM = Decimal(2**63 - 1).scaleb(-12)
"""The database adds up the costs of input and output at each insert, and refuses it if that is no Decimal(18, 12)."""
_LARGEST_PROMPT_VERSION = 2**16 - 1
_LOST_METADATA_KEYS = frozenset({"", "__proto__"})

_TYPES = frozenset(
    "span generation event agent tool chain retriever evaluator embedding guardrail".split()  # noqa: SIM905
)
_OPENINFERENCE_TYPES = {kind.upper(): kind.upper() for kind in _TYPES - {"span", "generation", "event"}} | {
    "LLM": "GENERATION"
}
_GENAI_TYPES = {
    "chat": "GENERATION",
    "completion": "GENERATION",
    "text_completion": "GENERATION",
    "generate_content": "GENERATION",
    "generate": "GENERATION",
    "embeddings": "EMBEDDING",
    "invoke_agent": "AGENT",
    "create_agent": "AGENT",
    "execute_tool": "TOOL",
}
_MODEL_NAMES = (
    "langfuse.observation.model.name",
    "gen_ai.response.model",
    "gen_ai.request.model",
    "llm.response.model",
    "llm.model_name",
    "model",
)
_USER_IDS = ("langfuse.user.id", "user.id", f"{_OBSERVATION_METADATA}.langfuse_user_id")
_SESSION_IDS = (
    "langfuse.session.id",
    "session.id",
    "gen_ai.conversation.id",
    f"{_OBSERVATION_METADATA}.langfuse_session_id",
)
_ENVIRONMENTS = ("langfuse.environment", "deployment.environment.name", "deployment.environment")
_LEVELS = {
    "DEBUG": "DEBUG",
    "TRACE": "DEBUG",
    "VERBOSE": "DEBUG",
    "DEFAULT": "DEFAULT",
    "INFO": "DEFAULT",
    "LOG": "DEFAULT",
    "NOTICE": "DEFAULT",
    "OK": "DEFAULT",
    "SUCCESS": "DEFAULT",
    "WARNING": "WARNING",
    "WARN": "WARNING",
    "ERROR": "ERROR",
    "CRITICAL": "ERROR",
    "FATAL": "ERROR",
}
_OBSERVATION_IO = ("langfuse.observation.input", "langfuse.observation.output")
_FRAMEWORK_IO = (
    ("mlflow.spanInputs", "mlflow.spanOutputs"),
    ("traceloop.entity.input", "traceloop.entity.output"),
    ("input.value", "output.value"),
    ("input", "output"),
    ("tool_arguments", "tool_response"),
    ("gen_ai.input.messages", "gen_ai.output.messages"),
    ("gen_ai.tool.call.arguments", "gen_ai.tool.call.result"),
)
# Shown as input or output, or dropped: never shown again among the metadata's `attributes.`
_NOT_IN_METADATA = frozenset(
    {
        "langfuse.trace.input",
        "langfuse.trace.output",
        "prompt",
        "all_messages_events",
        "events",
        "final_result",
    }
    | set(_OBSERVATION_IO)
    | {name for pair in _FRAMEWORK_IO for name in pair if not name.startswith("tool_")}
)
_NOT_IN_METADATA_PREFIXES = (
    "gen_ai.prompt",
    "gen_ai.completion",
    "llm.input_messages",
    "llm.output_messages",
    _OBSERVATION_METADATA,
    _TRACE_METADATA,
)
_OPENAI_USAGE = (
    ("prompt_tokens", "completion_tokens"),
    ("input_tokens", "output_tokens"),
)
_GENAI_USAGE = {
    "prompt_tokens": "input",
    "completion_tokens": "output",
    "total_tokens": "total",
    "input_tokens": "input",
    "output_tokens": "output",
    "prompt": "input",
    "completion": "output",
    "total": "total",
    "cache_read.input_tokens": "input_cached_tokens",
    "cache_creation.input_tokens": "input_cache_creation",
    "reasoning.output_tokens": "output_reasoning_tokens",
}
_PART_OF = {
    "input_cached_tokens": "input",
    "input_cache_creation": "input",
    "output_reasoning_tokens": "output",
}


def observations(spans: Iterable[ReceivedSpan], now_ms: int, visible_ms: int) -> list[Observation]:
    """The rows of one export. Of two spans with the same ids and start in it, only the later is kept."""
    rows: dict[tuple[str, str, int], Observation] = {}
    for span in spans:
        if not span.trace_id:
            raise UnstorableError("a trace id is empty")
        row = observation(span, now_ms, visible_ms)
        if is_named_by_half_a_character(row.input) or is_named_by_half_a_character(row.output):
            raise UnstorableError("the name of a tool holds half a surrogate pair")
        if _sum_of_costs(row) > _LARGEST_SUM:
            raise UnstorableError("the costs of one span add up to more than the database holds")
        rows[row.trace_id, row.id, row.start_ms] = row
    if len({_month(row.start_ms) for row in rows.values()}) > _MOST_MONTHS:
        raise UnstorableError(f"spans of more than {_MOST_MONTHS} months in one insert")
    return list(rows.values())


def observation(span: ReceivedSpan, now_ms: int, visible_ms: int) -> Observation:
    """The row of one span."""
    attributes = span.attributes
    kind = observation_type(attributes)
    given, result = _input_output(attributes)
    source, tree = with_tools_moved(given, _metadata_tree(span))
    model = _first_text(attributes, _MODEL_NAMES)
    known = model_named(model) if model else None
    costs = _json_object(attributes.get("langfuse.observation.cost_details"))
    # who says what it cost is not told how much it was
    usage = usage_details(_raw_usage(attributes)) or ({} if costs else _counted_usage(known, source, result))
    name = _first_text(attributes, ("gen_ai.tool.name", "logfire.msg")) or span.name
    is_root = span.parent_id is None or attributes.get("langfuse.internal.is_app_root") is True
    start_ms, end_ms = _times(span, now_ms)
    return Observation(
        trace_id=span.trace_id,
        id=span.span_id,
        parent_id=span.parent_id,
        start_ms=start_ms,
        end_ms=end_ms,
        created_ms=now_ms,
        visible_ms=visible_ms,
        trace_hash=xxh32(span.trace_id),
        type=kind,
        name=name,
        level=_level(attributes, span.status_code),
        status_message=_text(attributes.get("langfuse.observation.status_message", span.status_message)),
        version=_text(attributes.get("langfuse.version", span.resource.get("service.version"))),
        release=_text(attributes.get("langfuse.release", span.resource.get("langfuse.release"))),
        environment=environment(_first(attributes | _resource_only(span), _ENVIRONMENTS)),
        completion_start_ms=_completion_start(attributes.get("langfuse.observation.completion_start_time")),
        input=source,
        output=result,
        metadata=_flat(tree),
        model=model,
        model_id=known.id if known else "",
        model_parameters=model_parameters(attributes),
        usage=usage,
        cost=cost_details(costs, usage, known),
        prompt_name=_text(attributes.get("langfuse.observation.prompt.name")) if kind == "GENERATION" else "",
        prompt_version=_prompt_version(attributes) if kind == "GENERATION" else None,
        user_id=_first_text(attributes, _USER_IDS),
        session_id=_first_text(attributes, _SESSION_IDS),
        is_root=is_root,
        trace_name=_text(attributes.get("langfuse.trace.name")) or (name if is_root else None),
        tags=_tags(attributes.get("langfuse.trace.tags") or attributes.get("langfuse.tags")),
        public=attributes.get("langfuse.trace.public") in (True, "true"),
    )


def observation_type(attributes: Attributes) -> str:
    """The observation type, upper case."""
    given = attributes.get("langfuse.observation.type")
    if given in _TYPES:
        return str(given).upper()
    for name, types in (
        ("openinference.span.kind", _OPENINFERENCE_TYPES),
        ("gen_ai.operation.name", _GENAI_TYPES),
    ):
        if isinstance(attributes.get(name), str) and attributes[name] in types:
            return types[attributes[name]]
    if any(attributes.get(name) not in (None, "") for name in ("gen_ai.tool.name", "gen_ai.tool.call.id")):
        return "TOOL"
    return "GENERATION" if any(attributes.get(name) not in (None, "") for name in _MODEL_NAMES) else "SPAN"


def environment(given: Any) -> str:
    """An environment as it is stored: lower case, without the server's own prefix, 40 characters, else ``default``."""
    name = re.sub(r"^(langfuse[-_]?)+", "", given.lower())[:40] if isinstance(given, str) else ""
    return name if re.fullmatch(r"[a-z0-9_-]+", name) else "default"


def _metadata_tree(span: ReceivedSpan) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    if not (span.scope.name or "").startswith("langfuse-sdk"):
        tree["attributes"] = {
            name: _json_or_text(value)
            for name, value in span.attributes.items()
            if name not in _NOT_IN_METADATA and not name.startswith(_NOT_IN_METADATA_PREFIXES)
        }
    tree["resourceAttributes"] = span.resource
    scope = {"name": span.scope.name, "version": span.scope.version, "attributes": span.scope.attributes}
    tree["scope"] = {name: value for name, value in scope.items() if value is not None}
    for prefix in (_OBSERVATION_METADATA, _TRACE_METADATA):
        tree |= _given_metadata(span.attributes, prefix)
    return tree


def _flat(tree: Mapping[str, Any]) -> dict[str, str]:
    """Metadata as flat text, in the order of reading (the last one written comes first)."""
    flat: dict[str, str] = {}
    _flatten("", tree, flat)
    return dict(reversed(flat.items()))


def model_parameters(attributes: Attributes) -> dict[str, Any]:
    """Model parameters: numbers and strings stay, everything else becomes JSON text."""
    given = _json_object(attributes.get("langfuse.observation.model.parameters"))
    if not given and attributes.get("gen_ai.operation.name") != "invoke_agent":
        prefix = "gen_ai.request."
        given = {
            name.removeprefix(prefix): value
            for name, value in attributes.items()
            if name.startswith(prefix) and name != "gen_ai.request.model"
        }
    return {name: _parameter(value) for name, value in given.items()}


def usage_details(raw: Mapping[str, Any]) -> dict[str, int]:
    """Usage as stored: whole numbers only, OpenAI's nested details subtracted, a total added."""
    nested = _openai_details(raw)
    usage = {key: count for key, value in (nested or raw).items() if (count := _count(value)) is not None}
    if usage and "total" not in usage:
        usage["total"] = sum(usage.values())
    return {key: count % 2**64 for key, count in usage.items()}


def cost_details(given: Mapping[str, Any], usage: Mapping[str, int], model: Model | None) -> dict[str, float]:
    """Cost as stored: what was given, else usage times price.

    A total is added; to what was given only if that is no more than input and output.
    """
    costs = {key: _amount(value) for key, value in given.items() if value is not None}
    is_summed = costs.keys() <= {"input", "output"}
    if not costs and model:
        costs = {key: count * model.prices[key] for key, count in usage.items() if key in model.prices}
    if costs and is_summed and "total" not in costs:
        costs["total"] = sum(costs.values(), Decimal(0))
    return {key: stored_cost(amount) for key, amount in costs.items()}


@lru_cache(maxsize=4096)
def xxh32(text: str) -> int:
    """The 32-bit xxHash by which Langfuse orders traces that start in the same millisecond."""
    data, mask = text.encode("utf-8", "surrogatepass"), 0xFFFFFFFF
    primes = (2654435761, 2246822519, 3266489917, 668265263, 374761393)

    def rotated(value: int, bits: int) -> int:
        value &= mask
        return (value << bits | value >> (32 - bits)) & mask

    position, length = 0, len(data)
    if length >= 16:
        lanes = [primes[0] + primes[1], primes[1], 0, -primes[0]]
        while position + 16 <= length:
            for lane in range(4):
                word = int.from_bytes(data[position : position + 4], "little")
                lanes[lane] = rotated(lanes[lane] + word * primes[1], 13) * primes[0] & mask
                position += 4
        digest = sum(rotated(value, bits) for value, bits in zip(lanes, (1, 7, 12, 18), strict=True))
    else:
        digest = primes[4]
    digest += length
    while position + 4 <= length:
        word = int.from_bytes(data[position : position + 4], "little")
        digest = rotated(digest + word * primes[2], 17) * primes[3]
        position += 4
    for byte in data[position:]:
        digest = rotated(digest + byte * primes[4], 11) * primes[0]
    digest &= mask
    digest = (digest ^ digest >> 15) * primes[1] & mask
    digest = (digest ^ digest >> 13) * primes[2] & mask
    return digest ^ digest >> 16


def _sum_of_costs(row: Observation) -> Decimal:
    added = (amount for key, amount in row.cost.items() if "input" in key.lower() or "output" in key.lower())
    return sum(map(Decimal, added), Decimal(0))


def _month(ms: int) -> tuple[int, int]:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)
    return moment.year, moment.month


def _times(span: ReceivedSpan, now_ms: int) -> tuple[int, int]:
    start = span.start_ms if span.start_ms is not None else span.end_ms
    end = span.end_ms if span.end_ms is not None else span.start_ms
    return (now_ms if start is None else start), (now_ms if end is None else end)


def _level(attributes: Attributes, status_code: int) -> str:
    given = attributes.get("langfuse.observation.level")
    level = _LEVELS.get(given.strip().upper()) if isinstance(given, str) else None
    return level or ("ERROR" if status_code == 2 else "DEFAULT")


def _input_output(attributes: Attributes) -> tuple[str | None, str | None]:
    source, result = (attributes.get(name) for name in _OBSERVATION_IO)
    if source is None and result is None:
        for pair in _FRAMEWORK_IO:
            source, result = (attributes.get(name) for name in pair)
            if source or result:
                break
    return _stored_io(source), _stored_io(result)


def _stored_io(value: Any) -> str | None:
    return None if value in (None, "") else _json_or_text(value)


def _given_metadata(attributes: Attributes, prefix: str) -> dict[str, Any]:
    given = dict(_json_object(attributes.get(prefix) or attributes.get("langfuse.metadata")))
    for name, value in attributes.items():
        for start in (f"{prefix}.", "langfuse.metadata."):
            key = name.removeprefix(start)
            if name.startswith(start) and key not in _LOST_METADATA_KEYS:
                given[key] = value
    return given


def _flatten(prefix: str, value: Any, flat: dict[str, str]) -> None:
    if isinstance(value, dict):
        for name, item in value.items():
            _flatten(f"{prefix}.{name}" if prefix else name, item, flat)
    else:
        flat[prefix] = "" if value is None else _json_or_text(value)


def _raw_usage(attributes: Attributes) -> dict[str, Any]:
    given = attributes.get("langfuse.observation.usage_details")
    if given:
        return _json_object(given)
    counts = {
        name.removeprefix("gen_ai.usage.").removeprefix("llm.token_count."): value
        for name, value in attributes.items()
        if name.startswith(("gen_ai.usage.", "llm.token_count.")) and name != "gen_ai.usage.cost"
    }
    usage = {key: value for key, value in counts.items() if key not in _GENAI_USAGE}
    for name, key in _GENAI_USAGE.items():  # of several names for one count the first is taken
        if name in counts:
            usage.setdefault(key, counts[name])
    for part, whole in _PART_OF.items():
        if _count(usage.get(part)) and _count(usage.get(whole)):
            usage[whole] = max(0, usage[whole] - usage[part])
    return usage


def _counted_usage(model: Model | None, source: str | None, result: str | None) -> dict[str, int]:
    """The usage that the server invents for a known model when none was sent."""
    if model is None:
        return {}
    texts = {"input": source, "output": result}
    counts = {key: token_count(text) for key, text in texts.items() if text is not None}
    return usage_details(counts)


def _openai_details(raw: Mapping[str, Any]) -> dict[str, Any] | None:
    for source, result in _OPENAI_USAGE:
        names = {source, result, "total_tokens"}
        details = {f"{source}_details": ("input", source), f"{result}_details": ("output", result)}
        if not names <= raw.keys() <= names | details.keys():
            continue
        usage = {"input": raw[source], "output": raw[result], "total": raw["total_tokens"]}
        for name, (whole, _) in details.items():
            for part, count in (raw.get(name) or {}).items():
                if _count(count) is not None:
                    usage[f"{whole}_{part}"] = count
                    usage[whole] = max(0, usage[whole] - count)
        return usage
    return None


def _count(value: Any) -> int | None:
    if isinstance(value, str):
        digits = re.match(r"\s*[+-]?\d+", value, re.ASCII)  # as parseInt reads it: whatever follows does not matter
        value = int(digits[0]) if digits else None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        return None
    return value


def _amount(value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return Decimal(0)  # text becomes 0, also text that is a number
    try:
        amount = Decimal(repr(value))
    except InvalidOperation:
        return Decimal(0)
    return amount if amount.is_finite() else Decimal(0)


def _completion_start(value: Any) -> int | None:
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value.strip('"'))
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def _prompt_version(attributes: Attributes) -> int | None:
    version = _count(attributes.get("langfuse.observation.prompt.version"))
    return version if version and version <= _LARGEST_PROMPT_VERSION else None


def _tags(value: Any) -> list[str]:
    if isinstance(value, list):
        return [_text(tag) for tag in value]
    if not isinstance(value, str) or not value:
        return []
    if value.strip().startswith("["):
        parsed = _json(value)
        if isinstance(parsed, list):
            return [_text(tag) for tag in parsed]
    return [tag.strip() for tag in value.split(",")] if "," in value else [value]


def _parameter(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return js_number(value)
    return json_text(value)


def _resource_only(span: ReceivedSpan) -> Attributes:
    return {
        name: span.resource[name] for name in _ENVIRONMENTS if span.resource.get(name) and not span.attributes.get(name)
    }


def _first_text(attributes: Attributes, names: Iterable[str]) -> str:
    return _json_or_text(_first(attributes, names))


def _first(attributes: Attributes, names: Iterable[str]) -> Any:
    return next((attributes[name] for name in names if attributes.get(name)), "")


def _text(value: Any) -> str:
    return "" if value is None else _json_or_text(value)


def _json_or_text(value: Any) -> str:
    return value if isinstance(value, str) else json_text(value)


def _json_object(value: Any) -> dict[str, Any]:
    parsed = _json(value) if isinstance(value, str) else value
    return parsed if isinstance(parsed, dict) else {}


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None

"""Query parameters of Langfuse's v2 observations API, to a condition on the store or to the API's error."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from tracebridge.devserver.langfuse_ingest import xxh32
from tracebridge.devserver.store import Condition

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DEFAULT_LIMIT = 50
_MAX_LIMIT = 1000
_MINUTE_MS = 60_000
_MINUTES_RANGE_S = 2**32
_LEVELS = ["DEBUG", "DEFAULT", "WARNING", "ERROR"]

# The pattern is part of the recorded answer; it is the ISO 8601 form that the API accepts.
_DATE = (
    r"(?:(?:\d\d[2468][048]|\d\d[13579][26]|\d\d0[48]|[02468][048]00|[13579][26]00)-02-29|\d{4}-(?:(?:0[13578]"
    r"|1[02])-(?:0[1-9]|[12]\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)|(?:02)-(?:0[1-9]|1\d|2[0-8])))"
)
_TIME = r"T(?:(?:[01]\d|2[0-3]):[0-5]\d(?::[0-5]\d(?:\.\d+)?)?(?:Z|([+-](?:[01]\d|2[0-3]):[0-5]\d)))"
_DATETIME_PATTERN = f"^{_DATE}{_TIME}$"
_DATETIME = re.compile(_DATETIME_PATTERN)


_MINUTE = f"start_ms / {_MINUTE_MS} * 60 % {_MINUTES_RANGE_S}"
"""The table is sorted by the minute, whose seconds have 32 bits: from 2106 on it begins again with 1970."""


class RefusedError(Exception):
    """The request is answered with 400 and this body."""

    def __init__(self, body: dict[str, Any]) -> None:
        super().__init__(body["message"])
        self.body = body


class _Position(msgspec.Struct, frozen=True, kw_only=True):
    """What a cursor holds, in Langfuse's own spelling."""

    lastStartTimeTo: str
    lastTraceId: str
    lastId: str


class ObservationQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What one request asks for."""

    where: Condition
    limit: int
    fields: frozenset[str]
    expand: frozenset[str]


def parse_query(parameters: Sequence[tuple[str, str]]) -> ObservationQuery:
    """Read the query string; unknown parameters and unknown field groups are ignored, as by Langfuse."""
    single = dict(reversed(parameters))  # of a repeated parameter the first one counts
    if single.get("parseIoAsJson") == "true":
        raise _invalid(
            "parseIoAsJson",
            code="custom",
            message=(
                "parseIoAsJson=true is no longer supported on the v2 observations endpoint. Input/output "
                "fields are always returned as raw strings. Remove the parseIoAsJson parameter or set it to "
                "false."
            ),
        )
    limit = _limit(single.get("limit"))
    simple = _simple_conditions(single, [value for name, value in parameters if name == "environment"])
    filters = parse_filter(single.get("filter"))
    for column, _ in filters:
        simple.pop(column, None)
    conditions = [*simple.values(), *(condition for _, condition in filters)]
    if single.get("cursor"):
        conditions.append(_after(single["cursor"]))
    return ObservationQuery(
        where=_all(conditions),
        limit=limit,
        fields=frozenset(_names(single.get("fields"))) or frozenset({"core", "basic"}),
        expand=frozenset(_names(single.get("expandMetadata"))),
    )


def cursor(start_ms: int, trace_id: str, observation_id: str) -> str:
    """The cursor that goes on after this observation."""
    position = _Position(lastStartTimeTo=iso(start_ms), lastTraceId=trace_id, lastId=observation_id)
    return base64.b64encode(msgspec.json.encode(position)).decode()


def iso(milliseconds: int) -> str:
    """A time as the API writes it."""
    moment = _EPOCH + timedelta(milliseconds=milliseconds)
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def milliseconds(text: str) -> int:
    """A time with zone, cut to milliseconds."""
    return (datetime.fromisoformat(text) - _EPOCH) // timedelta(milliseconds=1)


def _names(value: str | None) -> list[str]:
    return [name.strip() for name in value.split(",") if name.strip()] if value else []


def _all(conditions: Sequence[Condition]) -> Condition:
    if not conditions:
        return Condition("TRUE")
    return Condition(
        " AND ".join(f"({condition.sql})" for condition in conditions),
        tuple(value for condition in conditions for value in condition.params),
    )


# Errors, in the form of the validation library that Langfuse uses


def _invalid(*path: str | int, **issue: Any) -> RefusedError:
    message = issue.pop("message")
    return RefusedError(
        {"message": "Invalid request data", "error": [{**issue, "path": list(path), "message": message}]}
    )


def _bad_request(message: str) -> RefusedError:
    return RefusedError({"message": message, "error": "InvalidRequestError"})


# Plain parameters


def _limit(text: str | None) -> int:
    if not text:
        return _DEFAULT_LIMIT
    try:
        limit = int(text)
    except ValueError:
        raise _invalid(
            "limit",
            expected="number",
            code="invalid_type",
            received="NaN",
            message="Invalid input: expected number, received NaN",
        ) from None
    if limit > _MAX_LIMIT:
        raise _invalid(
            "limit",
            origin="number",
            code="too_big",
            maximum=_MAX_LIMIT,
            inclusive=True,
            message=f"Too big: expected number to be <={_MAX_LIMIT}",
        )
    if limit < 0:
        raise _invalid(
            "limit",
            origin="number",
            code="too_small",
            minimum=0,
            inclusive=True,
            message="Too small: expected number to be >=0",
        )
    return limit


_EQUAL = {
    "type": "type",
    "name": "name",
    "userId": "user_id",
    "sessionId": "session_id",
    "traceId": "trace_id",
    "version": "version",
    "level": "level",
}


def _simple_conditions(single: Mapping[str, str], environments: Sequence[str]) -> dict[str, Condition]:
    """Conditions by column of the filter language, so that a `filter` on the same column can replace them."""
    conditions = {
        name: Condition(f"{column} = ?", (single[name],)) for name, column in _EQUAL.items() if single.get(name)
    }
    if single.get("level") and single["level"] not in _LEVELS:
        options = "|".join(f'"{level}"' for level in _LEVELS)
        raise _invalid(
            "level",
            code="invalid_value",
            values=_LEVELS,
            message=f"Invalid option: expected one of {options}",
        )
    if "parentObservationId" in single:
        parent = single["parentObservationId"]
        conditions["parentObservationId"] = (
            Condition("parent_id = ?", (parent,)) if parent else Condition("parent_id IS NULL")
        )
    if single.get("isRootObservation") in ("true", "false"):
        conditions["isRootObservation"] = Condition("is_root = ?", (single["isRootObservation"] == "true",))
    if environments:
        marks = ", ".join("?" * len(environments))
        conditions["environment"] = Condition(f"environment IN ({marks})", tuple(environments))
    bounds = [
        _bounded(operator, _time(name, single[name]))
        for name, operator in (("fromStartTime", ">="), ("toStartTime", "<"))
        if single.get(name)
    ]
    if bounds:
        conditions["startTime"] = _all(bounds)
    return conditions


def _bounded(operator: str, ms: int) -> Condition:
    """Times as they are, and what is looked for only where the table's minutes, as they wrap, may have it."""
    return Condition(f"start_ms {operator} ? AND {_MINUTE} {operator[0]}= ?", (ms, _minute(ms)))


def _minute(ms: int) -> int:
    return ms // _MINUTE_MS * 60 % _MINUTES_RANGE_S


def _time(name: str, text: str) -> int:
    if not _DATETIME.fullmatch(text):
        raise _invalid(
            name,
            origin="string",
            code="invalid_format",
            format="datetime",
            pattern=f"/{_DATETIME_PATTERN}/",
            message="Invalid ISO datetime",
        )
    return milliseconds(text)


def _after(text: str) -> Condition:
    try:
        position = msgspec.json.decode(base64.b64decode(text, validate=True), type=_Position)
        start_ms = milliseconds(position.lastStartTimeTo)
    except (binascii.Error, msgspec.DecodeError, ValueError, TypeError):
        raise _bad_request("Invalid cursor format") from None
    key = (start_ms, xxh32(position.lastTraceId), position.lastId)
    return Condition(f"(start_ms, trace_hash, id) < (?, ?, ?) AND {_MINUTE} <= ?", (*key, _minute(start_ms)))


# The structured filter

_USAGE_SUM = "(SELECT sum(value) FROM json_each(usage) WHERE key LIKE '%{}%')"
_COST_SUM = "(SELECT sum(value) FROM json_each(cost) WHERE key LIKE '%{}%')"
_COLUMNS = {
    "id": "id",
    "type": "type",
    "name": "name",
    "traceId": "trace_id",
    "startTime": "start_ms",
    "endTime": "end_ms",
    "environment": "environment",
    "level": "level",
    "statusMessage": "status_message",
    "version": "version",
    "release": "release",
    "userId": "user_id",
    "sessionId": "session_id",
    "parentObservationId": "parent_id",
    "isRootObservation": "is_root",
    "traceName": "trace_name",
    "traceTags": "tags",
    "tags": "tags",
    "latency": "((end_ms - start_ms) / 1000.0)",
    "timeToFirstToken": "((completion_start_ms - start_ms) / 1000.0)",
    "tokensPerSecond": f"({_USAGE_SUM.format('output')} * 1000.0 / nullif(end_ms - start_ms, 0))",
    "inputTokens": _USAGE_SUM.format("input"),
    "outputTokens": _USAGE_SUM.format("output"),
    "totalTokens": "json_extract(usage, '$.total')",
    "tokens": "json_extract(usage, '$.total')",
    "inputCost": _COST_SUM.format("input"),
    "outputCost": _COST_SUM.format("output"),
    "totalCost": "json_extract(cost, '$.total')",
    "model": "model",
    "providedModelName": "model",
    "promptName": "prompt_name",
    "promptVersion": "prompt_version",
    "input": "input",
    "output": "output",
    "metadata": "metadata",
}
_COMPARISONS = {"=", ">", "<", ">=", "<="}
_TEXT = {
    "=": "{} = ?",
    "contains": "instr({}, ?) > 0",
    "matches": "instr(lower({}), lower(?)) > 0",
    "does not contain": "instr({}, ?) = 0",
}
_KEYED = frozenset({"stringObject", "numberObject", "categoryOptions"})
_TYPES = _KEYED | {"datetime", "string", "number", "stringOptions", "arrayOptions", "boolean", "null"}


def parse_filter(text: str | None) -> list[tuple[str, Condition]]:
    """The `filter` parameter as conditions, each with its column."""
    if not text:
        return []
    try:
        entries = json.loads(text)
    except ValueError:
        raise _invalid("filter", code="custom", message="Invalid JSON in filter parameter") from None
    if not isinstance(entries, list):
        raise _invalid("filter", expected="array", code="invalid_type", message="Invalid input: expected array")
    return [_filter_condition(index, entry) for index, entry in enumerate(entries)]


def _filter_condition(index: int, entry: Any) -> tuple[str, Condition]:
    if not isinstance(entry, dict) or str(entry.get("type")) not in _TYPES:
        raise _invalid(
            "filter",
            index,
            "type",
            code="invalid_union",
            errors=[],
            note="No matching discriminator",
            discriminator="type",
            message="Invalid input",
        )
    column = str(entry.get("column"))
    if column not in _COLUMNS:
        raise _bad_request(f"Column {column} does not match a UI / CH table mapping.")
    kind = entry["type"]
    if (column == "metadata") != (kind in _KEYED) and kind != "null":
        raise _bad_request(f"Invalid filter type '{kind}' for column '{column}'.")
    condition = _typed_condition(kind, _COLUMNS[column], entry)
    if condition is None:
        raise _invalid(
            "filter",
            index,
            "operator",
            code="invalid_value",
            message="Invalid operator or value for this filter",
        )
    return column, condition


def _typed_condition(kind: str, expression: str, entry: Mapping[str, Any]) -> Condition | None:
    operator, value = str(entry.get("operator")), entry.get("value")
    if kind in _KEYED:
        key = entry.get("key")
        if not isinstance(key, str):
            return None
        quoted = key.replace("'", "''")
        expression = f"metadata_text(metadata, '{quoted}')"
    if kind == "null":
        known = {
            "is null": f"coalesce({expression}, '') = ''",
            "is not null": f"coalesce({expression}, '') <> ''",
        }
        return Condition(known[operator]) if operator in known else None
    if kind == "boolean":
        known = {"=": "=", "<>": "<>"}
        return Condition(f"{expression} {known[operator]} ?", (bool(value),)) if operator in known else None
    if kind == "datetime":
        if operator not in _COMPARISONS - {"="} or not isinstance(value, str) or not _DATETIME.fullmatch(value):
            return None
        return Condition(f"{expression} {operator} ?", (milliseconds(value),))
    if kind in ("number", "numberObject"):
        if operator not in _COMPARISONS or isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return Condition(f"CAST({expression} AS REAL) {operator} ?", (value,))
    if kind in ("string", "stringObject"):
        return _text_condition(expression, operator, value)
    return _options_condition(kind, expression, operator, value)


def _text_condition(expression: str, operator: Any, value: Any) -> Condition | None:
    if not isinstance(value, str):
        return None
    if operator in ("starts with", "ends with"):
        part = (
            f"substr({expression}, 1, length(?))" if operator == "starts with" else f"substr({expression}, -length(?))"
        )
        return Condition(f"{part} = ?", (value, value))
    return Condition(_TEXT[operator].format(expression), (value,)) if operator in _TEXT else None


def _options_condition(kind: str, expression: str, operator: Any, values: Any) -> Condition | None:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        return None
    marks = ", ".join("?" * len(values))
    if kind != "arrayOptions":
        known = {"any of": "IN", "none of": "NOT IN"}
        if operator not in known:
            return None
        return Condition(f"{expression} {known[operator]} ({marks})", tuple(values))
    found = f"(SELECT count(DISTINCT value) FROM json_each({expression}) WHERE value IN ({marks}))"
    counts = {"any of": "> 0", "none of": "= 0", "all of": f"= {len(set(values))}"}
    return Condition(f"{found} {counts[operator]}", tuple(values)) if operator in counts else None

"""One stored row as an answer of Langfuse's v2 observations API, without I/O."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any

from tracebridge.devserver.langfuse_query import ObservationQuery, iso
from tracebridge.devserver.otlp import js_number
from tracebridge.devserver.prices import model_with_id, price_text
from tracebridge.devserver.store import Observation

_METADATA_CUT = 200
_LOST_COST = "__proto__"
"""An amount under this name is stored, and no property of the object that it is copied into."""


def observation_json(row: Observation, query: ObservationQuery, project_id: str) -> dict[str, Any]:
    """One observation in the field order of the API, with the groups that were asked for."""
    fields = query.fields
    body: dict[str, Any] = {
        "id": row.id,
        "traceId": row.trace_id,
        "startTime": iso(row.start_ms),
        "endTime": iso(row.end_ms),
        "projectId": project_id,
        "parentObservationId": row.parent_id,
        "type": row.type,
    }
    if "basic" in fields:
        body |= {
            "name": row.name,
            "level": row.level,
            "statusMessage": row.status_message,
            "version": row.version,
            "environment": row.environment,
        }
    if "time" in fields:
        completion = row.completion_start_ms
        body |= {
            "completionStartTime": None if completion is None else iso(completion),
            "createdAt": iso(row.created_ms),
            "updatedAt": iso(row.created_ms),
        }
    if "io" in fields:
        body |= {"input": row.input, "output": row.output}
    if "metadata" in fields:
        body["metadata"] = _metadata_json(row, query)
    if "model" in fields:
        body |= {
            "model": row.model,
            "internalModelId": row.model_id,
            "modelParameters": row.model_parameters,
        }
    if "usage" in fields:
        body |= _usage_json(row)
    if "prompt" in fields:
        body |= {"promptId": "", "promptName": row.prompt_name, "promptVersion": row.prompt_version}
    if "usage" in fields:
        priced = row.model_id if row.usage else None
        body |= {
            "usagePricingTierId": f"{priced}_tier_default" if priced else None,
            "usagePricingTierName": "Standard" if priced else None,
        }
    body |= _latency_json(row, "metrics" in fields)
    if "basic" in fields:
        body |= {"userId": row.user_id, "sessionId": row.session_id, "isRootObservation": bool(row.is_root)}
    if "trace_context" in fields:
        body |= {"traceName": row.trace_name, "release": row.release, "tags": row.tags}
    if "basic" in fields:
        body |= {"bookmarked": False, "public": bool(row.public)}
    return body | _price_json(row, "model" in fields)


def _latency_json(row: Observation, with_metrics: bool) -> dict[str, Any]:
    """Latency is always there; only the metrics group turns a zero into null and knows the first token."""
    latency = _number((row.end_ms - row.start_ms) / 1000)
    if not with_metrics:
        return {"latency": latency, "timeToFirstToken": None}
    started = row.completion_start_ms
    first_token = None if started is None else _number((started - row.start_ms) / 1000)
    return {"latency": latency or None, "timeToFirstToken": first_token}


def _price_json(row: Observation, with_model: bool) -> dict[str, Any]:
    model = model_with_id(row.model_id) if with_model and row.model_id else None
    if model is None:
        return {"modelId": None, "inputPrice": None, "outputPrice": None, "totalPrice": None}
    return {
        "modelId": model.id,
        "inputPrice": price_text(model.prices.get("input", Decimal(0))),
        "outputPrice": price_text(model.prices.get("output", Decimal(0))),
        "totalPrice": None,
    }


def _usage_json(row: Observation) -> dict[str, Any]:
    return {
        "usageDetails": row.usage,
        "inputUsage": sum(count for key, count in row.usage.items() if "input" in key),
        "outputUsage": sum(count for key, count in row.usage.items() if "output" in key),
        "totalUsage": row.usage.get("total", 0),
        "costDetails": {key: _number(amount) for key, amount in row.cost.items() if key != _LOST_COST},
        "inputCost": _cost_of(row, "input"),
        "outputCost": _cost_of(row, "output"),
        "totalCost": _number(row.cost.get("total", 0)),
    }


def _cost_of(row: Observation, part: str) -> float | None:
    amounts = [amount for key, amount in row.cost.items() if part in key]
    return _number(sum(amounts)) if amounts else None


def _number(value: float) -> float:
    return int(value) if float(value).is_integer() else value


def _metadata_json(row: Observation, query: ObservationQuery) -> dict[str, Any]:
    whole = row.metadata.keys() if "io" in query.fields else query.expand
    return {key: metadata_value(text if key in whole else text[:_METADATA_CUT]) for key, text in row.metadata.items()}


def metadata_value(text: str) -> Any:
    """A metadata text as the API shows it: parsed where it is JSON, else as it is."""
    if text.lstrip(" \t\r\n")[:1] not in _JSON_STARTS:
        return text
    try:
        return _LOSSLESS.decode(text.strip(" \t\r\n"))
    except (ValueError, RecursionError):
        return text


def _lossless(text: str) -> float | str:
    """The number, or its text when a double cannot hold its digits."""
    number = float(text)
    return js_number(number) if _digits(text) == _digits(repr(number)) else text


def _digits(text: str) -> str:
    mantissa = re.split("[eE]", text)[0].lstrip("-")
    return mantissa.replace(".", "").lstrip("0").rstrip("0")


def _no_constant(name: str) -> float:
    raise ValueError(name)


_JSON_STARTS = frozenset('{["-0123456789tfn')
_LOSSLESS = json.JSONDecoder(parse_int=_lossless, parse_float=_lossless, parse_constant=_no_constant)

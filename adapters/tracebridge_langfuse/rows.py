"""A page of the v2 observations API, decoded. What is unknown is left alone, what is needed must be there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)

Key = tuple[str, str]
"""Trace id and observation id."""


class Row(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An observation as the server shows it. A group of fields that was not asked for is absent."""

    id: str
    trace_id: str
    type: str
    start_time: datetime
    end_time: datetime | None = None
    parent_observation_id: str | None = None
    name: str | None = None
    level: str | None = None
    status_message: str | None = None
    environment: str | None = None
    is_root_observation: bool | None = None
    user_id: str | None = None
    session_id: str | None = None
    completion_start_time: datetime | None = None
    input: Any = None
    output: Any = None
    metadata: dict[str, Any] | None = None
    model: str | None = None
    provided_model_name: str | None = None
    """What versions after 4.16 say for `model`."""
    model_parameters: Any = None
    usage_details: dict[str, Any] | None = None
    cost_details: dict[str, Any] | None = None
    prompt_name: str | None = None
    prompt_version: int | None = None
    trace_name: str | None = None
    release: str | None = None
    tags: list[str] | None = None

    @property
    def key(self) -> Key:
        """What the copies of an observation have in common."""
        return self.trace_id, self.id

    @property
    def start_ms(self) -> int:
        """The start in milliseconds since the epoch, cut as the server's filters see it."""
        return (_in_utc(self.start_time) - _EPOCH) // _MS

    def fields(self) -> Mapping[str, Any]:
        """The row by the names that `observation_of` goes by."""
        fields = msgspec.structs.asdict(self)
        for name in ("start_time", "end_time", "completion_start_time"):
            fields[name] = None if fields[name] is None else _in_utc(fields[name])
        for name in ("input", "output"):
            # always text up to 4.16; what it was made from means the same
            if fields[name] is not None and type(fields[name]) is not str:
                fields[name] = json.dumps(fields[name], ensure_ascii=False)
        fields["model"] = self.model or self.provided_model_name
        fields["usage_details"] = _counts(self.usage_details)
        fields["cost_details"] = _amounts(self.cost_details)
        return fields


class Meta(msgspec.Struct, frozen=True, kw_only=True):
    """What is said about a page."""

    cursor: str | None = None
    """Where the next page begins; absent on the last one."""


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """An answer of the v2 observations API."""

    data: list[Row]
    meta: Meta


def page_of(body: bytes) -> Page:
    """Decode an answer.

    Raises:
        msgspec.ValidationError: it is JSON, and no page of observations.
        msgspec.DecodeError: it is no JSON.
    """
    try:
        return _DECODER.decode(body)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        # a lone surrogate, NaN and the like: more than JSON allows, and said all the same
        try:
            return msgspec.convert(json.loads(body), Page)
        except ValueError as error:
            if isinstance(error, msgspec.ValidationError):
                raise
            raise msgspec.DecodeError(str(error)) from None


_DECODER: Final = msgspec.json.Decoder(Page)


def _in_utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _counts(values: Mapping[str, Any] | None) -> dict[str, int]:
    return {key: int(value) for key, value in (values or {}).items() if _is_number(value)}


def _amounts(values: Mapping[str, Any] | None) -> dict[str, float]:
    return {key: float(value) for key, value in (values or {}).items() if _is_number(value)}


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)

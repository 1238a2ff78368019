"""Reads spans back from Jaeger's query API, `/api/v3`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self

import httpx
import msgspec

from tracebridge.errors import BackendError
from tracebridge.sink import Query
from tracebridge.span import Span
from tracebridge_otel import names
from tracebridge_otel.configuration import OtelSettings
from tracebridge_otel.limit import as_sent
from tracebridge_otel.query_service import QueryService
from tracebridge_otel.selection import Window, halves, selected, session_of
from tracebridge_otlp.address import has_room_in_url
from tracebridge_otlp.decoding import UndecodableError, decode_traces
from tracebridge_otlp.wire import WireSpan

_TRACES: Final = "/api/v3/traces"
_PAGE: Final = 200
"""Traces a search may return. A search that returns as many is repeated in two halves of its window."""
_NS_PER_US: Final = 1_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST_US: Final = (2**63 - 1) // _NS_PER_US


class JaegerReader:
    """A `tracebridge.sink.Reader` for Jaeger 2."""

    def __init__(self, service: QueryService, name: str, limit: int) -> None:
        """Read what was sent under the service name `name`, cut at `limit` bytes an attribute unless that is 0."""
        self._service = service
        self._limit = limit
        self._name = name

    @classmethod
    def open(cls, settings: OtelSettings) -> Self:
        """Open the reader that the settings name; no connection is made yet."""
        return cls(QueryService.open("Jaeger", settings), settings.service, settings.attribute_limit)

    def read(self, query: Query) -> Iterator[Span]:
        """Yield every stored copy of every span that `query` asks for.

        Of a session its own spans are found, and those of other senders in the same traces.

        Raises:
            BackendError: Jaeger cannot be reached or answers what cannot be read.
        """
        return selected(self._traces(query), query, _NS_PER_US)

    def close(self) -> None:
        """Release connections."""
        self._service.close()

    def _traces(self, query: Query) -> Iterator[WireSpan]:
        if query.trace_ids:
            for trace_id in dict.fromkeys(query.trace_ids):
                yield from self._get(f"{_TRACES}/{trace_id}", {"rawTraces": "true", "raw_traces": "true"})
            return
        seen: set[str] = set()
        first_us = 0 if query.start_ns is None else max(query.start_ns // _NS_PER_US, 0)
        last_us = _LATEST_US if query.end_ns is None else min(query.end_ns // _NS_PER_US, _LATEST_US)
        windows = [(first_us, last_us)]
        while windows:
            window = windows.pop()
            spans = self._search(window, query.session_id, min(query.enough or _PAGE, _PAGE))
            found = {span.trace_id for span in spans}
            # a trace comes whole, whichever of its spans lies in the window
            wanted = found if query.session_id is None else _traces_of(query.session_id, spans)
            yield from (span for span in spans if span.trace_id in wanted and span.trace_id not in seen)
            seen |= found
            seen_enough = query.enough is not None and len(seen) >= query.enough
            if len(found) >= _PAGE and not seen_enough:
                windows.extend(self._halves(window, spans))

    def _search(self, window: Window, session_id: str | None, traces: int) -> list[WireSpan]:
        earliest, latest = _rfc3339(window[0]), _rfc3339(window[1], past_ns=_NS_PER_US - 1)
        # each as Jaeger calls it today and as it did before 2.20: it ignores names that it does not know
        parameters = {
            "query.serviceName": self._name,
            "query.service_name": self._name,
            "query.startTimeMin": earliest,
            "query.start_time_min": earliest,
            "query.startTimeMax": latest,
            "query.start_time_max": latest,
            "query.searchDepth": str(traces),
            "query.num_traces": str(traces),
            "query.rawTraces": "true",
            "query.raw_traces": "true",
        }
        if session_id is not None:
            attributes = msgspec.json.encode({names.SESSION_ID: as_sent(session_id, self._limit)}).decode()
            # else all that there is in this time is looked at
            if has_room_in_url(attributes):
                parameters["query.attributes"] = attributes
        return self._get(_TRACES, parameters)

    def _halves(self, window: Window, spans: list[WireSpan]) -> tuple[Window, Window]:
        found = halves(window, [span.start_ns // _NS_PER_US for span in spans])
        if found is None:
            raise BackendError(
                f"{self._service.place(_TRACES)}: {_PAGE} traces or more begin at {_rfc3339(window[0])}, "
                "in the same microsecond; Jaeger cannot list them all"
            )
        return found

    def _get(self, path: str, parameters: dict[str, str]) -> list[WireSpan]:
        response = self._service.get(path, parameters, "application/json")
        if response.status_code == httpx.codes.NOT_FOUND:
            if _is_jaegers(response):
                return []
            raise self._service.refused(path, response)
        try:
            return [received.span for result in _results(response.content) for received in decode_traces(result)]
        except (UndecodableError, msgspec.DecodeError, TypeError) as error:
            raise self._service.trouble(path, f"HTTP 200, but {error}") from None


def _traces_of(session_id: str, spans: list[WireSpan]) -> set[str]:
    return {span.trace_id for span in spans if session_of(span) == session_id}


def _results(body: bytes) -> Iterator[dict[str, Any]]:
    """The `result` objects of an answer: one, or one a line where the server streams."""
    try:
        answers = [msgspec.json.decode(body)]
    except msgspec.DecodeError:
        answers = [msgspec.json.decode(line) for line in body.splitlines() if line.strip()]
    for answer in answers:
        match answer:
            case {"result": dict(result)}:
                yield result
            case _:
                raise TypeError("the answer has no `result`")


def _is_jaegers(response: httpx.Response) -> bool:
    """Whether a 404 says that there is no such trace, rather than no such address."""
    try:
        return isinstance(msgspec.json.decode(response.content), dict)
    except msgspec.DecodeError:
        return False


def _rfc3339(time_us: int, past_ns: int = 0) -> str:
    """A microsecond, or `past_ns` (less than 1,000) nanoseconds after it: some storages keep those."""
    moment = _EPOCH + timedelta(microseconds=time_us)
    return f"{moment:%Y-%m-%dT%H:%M:%S.%f}{past_ns:03}Z"

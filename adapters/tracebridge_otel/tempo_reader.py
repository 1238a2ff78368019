"""Reads spans back from Tempo's query API.

Written from Tempo's public documentation and tried against the development backend, never against a real Tempo.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final, Self

import httpx
import msgspec

from tracebridge.errors import IncompleteAnswerError
from tracebridge.sink import Query
from tracebridge.span import Span
from tracebridge_otel import names
from tracebridge_otel.configuration import OtelSettings
from tracebridge_otel.limit import as_sent
from tracebridge_otel.query_service import QueryService
from tracebridge_otel.selection import Window, halves, selected
from tracebridge_otel.tempo_answer import JSON, PROTOBUF, FoundTrace, TraceAnswer, trace_in, traces_found
from tracebridge_otlp.decoding import UndecodableError
from tracebridge_otlp.wire import WireSpan

_TRACES: Final = "/api/v2/traces"
_SEARCH: Final = "/api/search"
_ECHO: Final = "/api/echo"
_PAGE: Final = 200
"""Traces a search may return. One that returns as many is repeated in two halves of its window."""
_MOST_IN_A_SECOND: Final = 51_200
"""Traces that a search for one second, which cannot be halved, may return."""
_LONGEST_SEARCH_S: Final = 7 * 86_400
"""A search of more time is refused, unless Tempo was told otherwise."""
_AHEAD_S: Final = 86_400
"""Clocks are not all the same: what seems to begin a day from now is read, too."""
_NS_PER_S: Final = 1_000_000_000


class TempoReader:
    """A `tracebridge.sink.Reader` for Tempo 2.6 and later.

    A trace is asked for by its id, and comes whole or is an error. A session, or a window of time, is searched for, and
    a search does not find what was old when it came.
    """

    def __init__(self, service: QueryService, name: str, limit: int, lookback_s: float) -> None:
        """Read what was sent under the service name `name`, cut at `limit` bytes an attribute unless that is 0.

        A search that names no beginning goes back `lookback_s` seconds.
        """
        self._service = service
        self._name = name
        self._limit = limit
        self._lookback_s = lookback_s
        self._is_known_to_be_tempo = False

    @classmethod
    def open(cls, settings: OtelSettings) -> Self:
        """Open the reader that the settings name; no connection is made yet."""
        assert settings.reader is not None, "only called where the capabilities say readable"
        service = QueryService.open("Tempo", settings)
        return cls(service, settings.service, settings.attribute_limit, settings.reader.lookback_s)

    def read(self, query: Query) -> Iterator[Span]:
        """Yield every stored copy of every span that `query` asks for and Tempo finds.

        Of a session its own spans are found, and those of other senders in the same traces.

        Raises:
            BackendError: Tempo cannot be reached or answers what cannot be read.
            IncompleteAnswerError: it shows only a part of a trace.
        """
        return selected(self._spans(query), query)

    def close(self) -> None:
        """Release connections."""
        self._service.close()

    def _spans(self, query: Query) -> Iterator[WireSpan]:
        seen: set[str] = set()
        for trace_id in query.trace_ids or self._searched(query):
            if trace_id not in seen:
                seen.add(trace_id)
                yield from self._trace(trace_id)

    def _searched(self, query: Query) -> Iterator[str]:
        """The ids of the traces that searches find, some of them more than once."""
        windows = self._windows(query)
        while windows:
            window = windows.pop()
            found = self._search(window, query.session_id, _PAGE)
            yield from (trace.trace_id for trace in found)
            if len(found) < _PAGE:
                continue
            parts = halves(window, [trace.start_s for trace in found])
            if parts is None:
                yield from self._all_of_a_second(window, query.session_id)
            else:
                windows.extend(parts)

    def _windows(self, query: Query) -> list[Window]:
        """The window that a query asks for, in whole seconds and in pieces that Tempo takes."""
        now_s = int(time.time())
        # who asks from 1970 on asks for everything
        first_s = query.start_ns // _NS_PER_S if query.start_ns else now_s - int(self._lookback_s)
        last_s = now_s + _AHEAD_S if query.end_ns is None else (query.end_ns - 1) // _NS_PER_S
        begins = range(max(first_s, 0), last_s + 1, _LONGEST_SEARCH_S)
        return [(begin, min(begin + _LONGEST_SEARCH_S - 1, last_s)) for begin in begins]

    def _all_of_a_second(self, window: Window, session_id: str | None) -> Iterator[str]:
        limit = _PAGE
        while limit < _MOST_IN_A_SECOND:
            limit *= 4
            found = self._search(window, session_id, limit)
            if len(found) < limit:
                yield from (trace.trace_id for trace in found)
                return
        raise self._service.trouble(
            _SEARCH, f"{limit} traces or more begin in the second {window[0]}; it cannot list all"
        )

    def _search(self, window: Window, session_id: str | None, limit: int) -> list[FoundTrace]:
        parameters = {
            "q": _traceql(self._name, None if session_id is None else as_sent(session_id, self._limit)),
            "start": str(window[0]),
            "end": str(window[1] + 1),
            "limit": str(limit),
            "spss": "1",
        }
        response = self._service.get(_SEARCH, parameters, JSON)
        if response.status_code != httpx.codes.OK:
            raise self._service.refused(_SEARCH, response)
        try:
            return traces_found(response.content)
        except UndecodableError as error:
            raise self._service.trouble(_SEARCH, f"HTTP 200, but {error}") from None

    def _trace(self, trace_id: str) -> list[WireSpan]:
        answer = self._asked_for(trace_id)
        if answer is None:
            return []
        if not answer.is_complete:
            said = f" ({answer.message})" if answer.message else ""
            raise IncompleteAnswerError(
                f"{self._service.place(f'{_TRACES}/{trace_id}')}: Tempo shows only a part of this trace{said}; raise "
                "`overrides.defaults.global.max_bytes_per_trace` in Tempo's configuration"
            )
        return answer.spans

    def _asked_for(self, trace_id: str) -> TraceAnswer | None:
        path = f"{_TRACES}/{trace_id}"
        try:
            return self._answer(path, PROTOBUF)
        except UndecodableError:
            # a text that Tempo has cut within a character cannot be read as protobuf, and can as JSON
            try:
                return self._answer(path, JSON)
            except UndecodableError as error:
                raise self._service.trouble(path, f"HTTP 200, but {error}") from None

    def _answer(self, path: str, form: str) -> TraceAnswer | None:
        response = self._service.get(path, {}, form)
        if response.status_code == httpx.codes.NOT_FOUND:
            self._make_sure_that_this_is_tempo(path)
            return None
        return trace_in(response)

    def _make_sure_that_this_is_tempo(self, path: str) -> None:
        """See to it that a 404 says that there is no such trace, rather than no such address."""
        if self._is_known_to_be_tempo:
            return
        echo = self._service.get(_ECHO, {}, "*/*")
        if echo.status_code != httpx.codes.OK or echo.content.strip() != b"echo":
            place = self._service.place(_ECHO)
            raise self._service.trouble(
                path, f"HTTP 404, and {place} does not answer as Tempo does; check `reader.url`"
            )
        self._is_known_to_be_tempo = True


def _traceql(service: str, session_id: str | None) -> str:
    conditions = [f"resource.service.name = {_literal(service)}"]
    if session_id is not None:
        conditions.append(f"span.{names.SESSION_ID} = {_literal(session_id)}")
    return f"{{ {' && '.join(conditions)} }}"


def _literal(text: str) -> str:
    """A text as TraceQL writes it: as Go does, which reads what JSON writes."""
    return msgspec.json.encode(text).decode()

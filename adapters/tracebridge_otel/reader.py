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
from tracebridge_otel.configuration import JaegerSettings, OtelSettings
from tracebridge_otel.mapping import from_wire
from tracebridge_otel.remainder import text_in
from tracebridge_otlp.answer import shortened
from tracebridge_otlp.decoding import UndecodableError, decode_traces
from tracebridge_otlp.http_transport import Certificates, tls_context
from tracebridge_otlp.secrecy import Redactor, header_fields, without_credentials
from tracebridge_otlp.untraced import untraced
from tracebridge_otlp.wire import WireSpan

_PAGE: Final = 200
"""Traces a search may return. A search that returns as many is repeated in two halves of its window."""
_NS_PER_US: Final = 1_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST_US: Final = (2**63 - 1) // _NS_PER_US


class JaegerReader:
    """A `tracebridge.sink.Reader` for Jaeger 2."""

    def __init__(self, settings: JaegerSettings, service: str, certificates: Certificates) -> None:
        """Read what was sent under the service name `service`; no connection is made yet."""
        headers = {name: value.reveal() for name, value in settings.headers.items()}
        self._url = settings.url.rstrip("/") + "/api/v3/traces"
        self._service = service
        self._redact = Redactor(headers.values(), settings.url)
        self._client = httpx.Client(
            headers={"accept": "application/json", "user-agent": "tracebridge", **header_fields(headers)},
            timeout=settings.timeout,
            follow_redirects=False,
            verify=tls_context(certificates),
        )

    @classmethod
    def open(cls, settings: OtelSettings) -> Self:
        """Open the reader that the settings name."""
        assert settings.reader is not None, "only called where the capabilities say readable"
        certificates = Certificates(
            authority=settings.certificate, client=settings.client_certificate, client_key=settings.client_key
        )
        return cls(settings.reader, settings.service, certificates)

    def read(self, query: Query) -> Iterator[Span]:
        """Yield every stored copy of every span that `query` asks for.

        Of a session its own spans are found, and those of other senders in the same traces.

        Raises:
            BackendError: Jaeger cannot be reached or answers what cannot be read.
        """
        for wire in self._traces(query):
            if not _is_in_window(wire, query):
                continue
            if query.session_id is not None and not _concerns(wire, query.session_id):
                continue
            yield _ids_of(wire) if query.ids_only else from_wire(wire)

    def close(self) -> None:
        """Release connections."""
        self._client.close()

    def _traces(self, query: Query) -> Iterator[WireSpan]:
        if query.trace_ids:
            for trace_id in dict.fromkeys(query.trace_ids):
                yield from self._get(f"{self._url}/{trace_id}", {"rawTraces": "true", "raw_traces": "true"})
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
            yield from (span for span in spans if span.trace_id not in seen)
            seen |= found
            seen_enough = query.enough is not None and len(seen) >= query.enough
            if len(found) >= _PAGE and not seen_enough:
                windows.extend(self._halves(window, spans))

    def _search(self, window: tuple[int, int], session_id: str | None, traces: int) -> list[WireSpan]:
        earliest, latest = _rfc3339(window[0]), _rfc3339(window[1], past_ns=_NS_PER_US - 1)
        # each as Jaeger calls it today and as it did before 2.20: it ignores names that it does not know
        parameters = {
            "query.serviceName": self._service,
            "query.service_name": self._service,
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
            parameters["query.attributes"] = msgspec.json.encode({names.SESSION_ID: session_id}).decode()
        return self._get(self._url, parameters)

    def _halves(self, window: tuple[int, int], spans: list[WireSpan]) -> list[tuple[int, int]]:
        """Split a window where half of what was found in it begins, so that few searches reach the end."""
        first_us, last_us = window
        if first_us >= last_us:
            raise BackendError(
                f"{without_credentials(self._url)}: {_PAGE} traces or more begin at {_rfc3339(first_us)}, "
                "in the same microsecond; Jaeger cannot list them all"
            )
        starts_us = sorted(
            start_us for span in spans if first_us <= (start_us := span.start_ns // _NS_PER_US) <= last_us
        )
        middle_us = starts_us[len(starts_us) // 2] if starts_us else (first_us + last_us) // 2
        middle_us = min(middle_us, last_us - 1)
        return [(first_us, middle_us), (middle_us + 1, last_us)]

    def _get(self, url: str, parameters: dict[str, str]) -> list[WireSpan]:
        place = without_credentials(url)
        try:
            with untraced():
                response = self._client.get(url, params=parameters)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._trouble(f"{place}: {type(error).__name__}: {error}") from None
        if response.status_code == httpx.codes.NOT_FOUND and _is_jaegers(response):
            return []
        if response.status_code != httpx.codes.OK:
            raise self._trouble(f"{place}: HTTP {response.status_code}: {response.text}")
        try:
            return [received.span for result in _results(response.content) for received in decode_traces(result)]
        except (UndecodableError, msgspec.DecodeError, TypeError) as error:
            raise self._trouble(f"{place}: HTTP 200, but {error}") from None

    def _trouble(self, words: str) -> BackendError:
        return BackendError(f"Jaeger cannot be read: {self._redact(shortened(words))}")


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


def _is_in_window(wire: WireSpan, query: Query) -> bool:
    # Jaeger may have cut the time to microseconds, so the bounds are cut too
    start_us = wire.start_ns // _NS_PER_US
    after_start = query.start_ns is None or start_us >= query.start_ns // _NS_PER_US
    before_end = query.end_ns is None or start_us < -(-query.end_ns // _NS_PER_US)
    return after_start and before_end


def _concerns(wire: WireSpan, session_id: str) -> bool:
    """Whether a span of a trace that the session takes part in is the session's own, or nobody's of ours."""
    return wire.attributes.get(names.SESSION_ID) == session_id or names.FINGERPRINT not in wire.attributes


def _ids_of(wire: WireSpan) -> Span:
    return Span(
        kind="event",
        trace_id=wire.trace_id,
        span_id=wire.span_id,
        name=wire.name,
        start_ns=wire.start_ns,
        end_ns=wire.end_ns,
        session_id=text_in(wire.attributes, names.SESSION_ID),
        fingerprint=text_in(wire.attributes, names.FINGERPRINT),
    )


def _rfc3339(time_us: int, past_ns: int = 0) -> str:
    """A microsecond, or `past_ns` (less than 1,000) nanoseconds after it: some storages keep those."""
    moment = _EPOCH + timedelta(microseconds=time_us)
    return f"{moment:%Y-%m-%dT%H:%M:%S.%f}{past_ns:03}Z"

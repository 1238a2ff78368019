"""Posts spans to the webhook, and tells what each answer means."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import httpx
import msgspec

from tracebridge.sink import Outcome, Receipt
from tracebridge.span import Span
from tracebridge_webhook.configuration import WebhookSettings

_MOST_SAID: Final = 300

# RETRY only where it is certain that nothing was stored: whoever is wrong about that makes spans be there twice
_OUTCOMES: Final[Mapping[int, Outcome]] = {
    400: Outcome.REJECTED,
    401: Outcome.UNAUTHORIZED,
    403: Outcome.UNAUTHORIZED,
    408: Outcome.RETRY,
    413: Outcome.TOO_LARGE,
    422: Outcome.REJECTED,
    429: Outcome.RETRY,
    503: Outcome.RETRY,
}
_NO_CONNECTION: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


class WebhookSink:
    """A `tracebridge.sink.Sink`. It makes no connection before `deliver`."""

    def __init__(self, settings: WebhookSettings) -> None:
        self._url = settings.url
        self._token = settings.token.reveal()
        self._timeout_s = settings.timeout
        headers = {"content-type": "application/json", "accept-encoding": "identity"}
        if self._token:
            headers["authorization"] = f"Bearer {self._token}"
        self._client = httpx.Client(headers=headers, timeout=settings.timeout)

    def encode(self, span: Span) -> bytes:
        """Make one event of a span."""
        # the standard library's encoder takes integers of any size and broken Unicode, which agents do log
        return json.dumps(event_of(span), separators=(",", ":")).encode()

    def join(self, parts: Sequence[bytes]) -> bytes:
        """Make one JSON array of events."""
        return b"[" + b",".join(parts) + b"]"

    def deliver(self, request: bytes) -> Receipt:
        """Post once, and tell what became of it."""
        try:
            status, headers, said = self._post(request)
        except _NO_CONNECTION as error:
            return self._receipt(Outcome.RETRY, f"no connection: {error}")
        except httpx.HTTPError as error:
            # it was on its way: nobody knows whether it was taken
            return self._receipt(Outcome.UNKNOWN, f"no answer: {type(error).__name__}: {error}")
        if 200 <= status < 300:
            return Receipt(outcome=Outcome.ACCEPTED)
        # a wrong address is not the spans' fault; after a 5xx they may have been stored all the same
        outcome = _OUTCOMES.get(status, Outcome.RETRY if status < 500 else Outcome.UNKNOWN)
        return self._receipt(outcome, f"HTTP {status}: {said}", _seconds(headers.get("retry-after", "")))

    def close(self) -> None:
        """Release connections."""
        self._client.close()

    def _post(self, request: bytes) -> tuple[int, httpx.Headers, str]:
        deadline = time.monotonic() + self._timeout_s
        with self._client.stream("POST", self._url, content=request) as answer:
            said = bytearray()
            for chunk in answer.iter_bytes():
                said += chunk
                if len(said) > _MOST_SAID:
                    break
                if time.monotonic() > deadline:
                    # the client's own time-out starts anew with every byte that comes
                    raise httpx.ReadTimeout(f"the answer was not complete after {self._timeout_s:g} s")
            return answer.status_code, answer.headers, said[:_MOST_SAID].decode(errors="replace")

    def _receipt(self, outcome: Outcome, message: str, retry_after_s: float | None = None) -> Receipt:
        if self._token:
            # a server may quote what it refuses
            message = message.replace(self._token, "***")
        return Receipt(outcome=outcome, message=message, retry_after_s=retry_after_s)


def event_of(span: Span) -> dict[str, Any]:
    """What is posted of a span."""
    event = {
        "id": f"{span.trace_id}-{span.span_id}",
        "parent": span.parent_id and f"{span.trace_id}-{span.parent_id}",
        "kind": span.kind,
        "name": span.name,
        "session": span.session_id,
        "user": span.user_id,
        "start": _iso(span.start_ns),
        "duration_ms": (span.end_ns - span.start_ns) / 1e6,
        "model": span.model,
        "input": span.input,
        "output": span.output,
        "usage": span.usage,
        "status": span.status,
        "error": span.error and span.error.message,
    }
    return {key: msgspec.to_builtins(value) for key, value in event.items() if value not in (None, "", {})}


def _iso(ns: int) -> str:
    return datetime.fromtimestamp(ns / 1e9, UTC).isoformat()


def _seconds(text: str) -> float | None:
    return float(text) if text.isdecimal() else None

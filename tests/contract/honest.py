"""A small honest sink with a reader, over HTTP, to be made dishonest one defect at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx
import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tracebridge.errors import BackendError
from tracebridge.secret import Secret
from tracebridge.sink import Capabilities, Outcome, Query, Receipt
from tracebridge.span import Span


class Archive:
    """A backend that keeps spans as lines of JSON, each copy of them."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.app = Starlette(
            routes=[
                Route("/spans", self._take, methods=["POST"]),
                Route("/spans", self._give, methods=["GET"]),
            ]
        )

    def stored(self) -> list[tuple[str, str]]:
        return [(span.trace_id, span.span_id) for span in map(decoded, self.lines)]

    async def _take(self, request: Request) -> Response:
        self.lines += (await request.body()).splitlines()
        return Response()

    async def _give(self, _: Request) -> Response:
        return Response(b"\n".join(self.lines))


def decoded(line: bytes) -> Span:
    return msgspec.json.decode(line, type=Span)


class ArchiveSettings(msgspec.Struct, frozen=True, kw_only=True):
    url: str
    key: Secret
    timeout: float = 1.0


class HonestSink:
    def __init__(self, settings: ArchiveSettings) -> None:
        self.settings = settings
        self.client = httpx.Client(headers={"x-key": settings.key.reveal()}, timeout=settings.timeout)

    def encode(self, span: Span) -> bytes:
        return msgspec.json.encode(span)

    def join(self, parts: Sequence[bytes]) -> bytes:
        return b"\n".join(parts)

    def deliver(self, request: bytes) -> Receipt:
        try:
            answer = self.client.post(f"{self.settings.url}/spans", content=request)
        except httpx.ConnectError as error:
            return Receipt(outcome=Outcome.RETRY, message=str(error))
        except httpx.HTTPError as error:
            return Receipt(outcome=Outcome.UNKNOWN, message=repr(error))
        return Receipt(
            outcome=self.outcome_of(answer.status_code),
            retry_after_s=float(answer.headers.get("retry-after", 0)) or None,
            message="" if answer.is_success else self.words(answer.text),
        )

    def outcome_of(self, status: int) -> Outcome:
        known = {
            200: Outcome.ACCEPTED,
            400: Outcome.REJECTED,
            401: Outcome.UNAUTHORIZED,
            413: Outcome.TOO_LARGE,
            503: Outcome.RETRY,
        }
        return known.get(status, Outcome.UNKNOWN)

    def words(self, text: str) -> str:
        return text.replace(self.settings.key.reveal(), "***")

    def close(self) -> None:
        self.client.close()


class HonestReader:
    def __init__(self, settings: ArchiveSettings) -> None:
        self.settings = settings

    def read(self, query: Query) -> Iterator[Span]:
        for span in self.everything():
            if self.is_asked_for(span, query):
                yield span

    def is_asked_for(self, span: Span, query: Query) -> bool:
        return (
            query.session_id in (None, span.session_id)
            and (not query.trace_ids or span.trace_id in query.trace_ids)
            and (query.start_ns is None or span.start_ns >= query.start_ns)
            and (query.end_ns is None or span.start_ns < query.end_ns)
        )

    def everything(self) -> list[Span]:
        answer = httpx.get(f"{self.settings.url}/spans", timeout=self.settings.timeout)
        if not answer.is_success:
            raise BackendError(f"{self.settings.url}: HTTP {answer.status_code}")
        return [decoded(line) for line in answer.content.splitlines()]

    def close(self) -> None:
        return


class HonestType:
    settings = ArchiveSettings
    environment: Mapping[str, Sequence[str]] = {"key": ("ARCHIVE_KEY",)}
    extra = ""
    sink: type[HonestSink] = HonestSink
    reader: type[HonestReader] = HonestReader

    def capabilities(self, settings: Any) -> Capabilities:
        return Capabilities(mapping_version=1, max_request_bytes=1 << 20, readable=True, visibility_lag_s=0.05)

    def endpoint(self, settings: Any) -> str:
        return str(settings.url)

    def open_sink(self, settings: Any) -> HonestSink:
        return self.sink(settings)

    def open_reader(self, settings: Any) -> HonestReader:
        return self.reader(settings)

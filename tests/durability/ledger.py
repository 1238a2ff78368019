"""A backend that takes everything and cannot be read: it notes each request, byte for byte, in one file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from tracebridge.sink import Capabilities, Outcome, Reader, Receipt
from tracebridge.span import Span

_LENGTH_DIGITS = 8


class LedgerSettings(msgspec.Struct, frozen=True):
    path: Path


class LedgerType:
    """The sink type."""

    settings = LedgerSettings
    environment: Mapping[str, Sequence[str]] = {}
    extra = ""

    def capabilities(self, settings: msgspec.Struct) -> Capabilities:
        return Capabilities(mapping_version=1, max_request_bytes=1 << 20)

    def endpoint(self, settings: msgspec.Struct) -> str:
        assert isinstance(settings, LedgerSettings)
        return str(settings.path)

    def open_sink(self, settings: msgspec.Struct) -> LedgerSink:
        assert isinstance(settings, LedgerSettings)
        return LedgerSink(settings.path)

    def open_reader(self, settings: msgspec.Struct) -> Reader:
        raise AssertionError("declared as not readable")


class LedgerSink:
    def __init__(self, path: Path) -> None:
        self._path = path

    def encode(self, span: Span) -> bytes:
        return msgspec.json.encode(span)

    def join(self, parts: Sequence[bytes]) -> bytes:
        return b"\n".join(parts)

    def deliver(self, request: bytes) -> Receipt:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            # one call, so that a request is noted whole or not at all
            os.write(descriptor, b"%0*d" % (_LENGTH_DIGITS, len(request)) + request)
        finally:
            os.close(descriptor)
        return Receipt(outcome=Outcome.ACCEPTED)

    def close(self) -> None:
        return


def noted(path: Path) -> list[bytes]:
    """All requests, in the order in which they came."""
    requests = []
    rest = path.read_bytes() if path.exists() else b""
    while rest:
        end = _LENGTH_DIGITS + int(rest[:_LENGTH_DIGITS])
        assert len(rest) >= end, "a request is noted whole"
        requests.append(rest[_LENGTH_DIGITS:end])
        rest = rest[end:]
    return requests


def spans_of(request: bytes) -> list[Span]:
    return [msgspec.json.decode(line, type=Span) for line in request.split(b"\n")]

"""A journal, a real sink, and a shipper that brings the one to the other while a test looks on."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from tests.delivery.rig import write_session
from tests.outcomes.backend import Kept, SpanId
from tracebridge.config import SinkSettings
from tracebridge.delivery.backoff import Backoff
from tracebridge.delivery.pace import FullSpeed
from tracebridge.delivery.shipper import Round, Shipper
from tracebridge.delivery.state import Account, DeadLetter, State
from tracebridge.journal import layout
from tracebridge.journal.opened import OpenedLog
from tracebridge.policy import Policy
from tracebridge.secret import Secret
from tracebridge.session_stream import SessionStream
from tracebridge.sink import SinkType
from tracebridge.span import Span
from tracebridge_langfuse.configuration import LangfuseSettings
from tracebridge_langfuse.factory import sink_type as langfuse_type
from tracebridge_otel.configuration import OtelSettings
from tracebridge_otel.factory import sink_type as otel_type

TOKEN = "s3cr3t-t0ken"
TIMEOUT_S = 0.4
"""Of a sink whose backend does not answer."""
PATIENT_S = 30.0
"""Of any other: what the machine takes for an answer must not be taken for none."""
FEW_SPANS = 7
"""How many spans a session of three turns has, each with a call of a tool."""


class Trial:
    """Ships a journal to one backend, and tells what has become of it."""

    def __init__(self, folder: Path, sink: SinkSettings, backend: Kept, log: pytest.LogCaptureFixture) -> None:
        self.trace_dir = folder / "traces"
        self.sink = sink
        self._backend = backend
        self._log = log
        self._shipper: Shipper | None = None
        self._asked = 0

    def write(self, name: str, tool: str = "search", turns: int = 3, result: str = "found") -> None:
        """Record a whole session, of `2 * turns + 1` spans: in each turn the tool gives the result."""
        events = write_session(self.trace_dir, name, turns=turns, tool=tool)
        events.write_text(events.read_text().replace('"found"', json.dumps(result)))
        OpenedLog(self.trace_dir).append(events.parent.name)
        # nobody waits for more to gather
        self._asked += 1

    # --- shipping ---------------------------------------------------------------------------------------------------

    @property
    def shipper(self) -> Shipper:
        if self._shipper is None:
            backoff = Backoff(first_s=0.002, longest_s=0.01)
            self._shipper = Shipper(self.sink, self.trace_dir, FullSpeed(), backoff=backoff)
        return self._shipper

    def ship_until(self, is_enough: Callable[[], bool], what: str, seconds: float = 50.0) -> None:
        """Ship on until something is the case."""
        shipper, deadline = self.shipper, time.monotonic() + seconds
        while not is_enough():
            assert time.monotonic() < deadline, f"{what}: not within {seconds} s; {shipper.trouble}"
            self._round()

    def ship(self, seconds: float = 50.0) -> None:
        """Ship until everything that is written by now is delivered, or is a dead letter."""
        deadline = time.monotonic() + seconds
        while not self._round().is_done:
            assert time.monotonic() < deadline, f"not delivered within {seconds} s; {self.shipper.trouble}"

    def _round(self) -> Round:
        round_ = self.shipper.round(self._asked)
        if not round_.is_done:
            self.shipper.wait(min(round_.wait_s, 0.02))
        return round_

    def close(self) -> None:
        if self._shipper is not None:
            self._shipper.close()
            self._shipper = None

    # --- what has become of it --------------------------------------------------------------------------------------

    def owed(self) -> dict[SpanId, Span]:
        """Every span of the journal."""
        return {
            (span.trace_id, span.span_id): span
            for folder in layout.session_folders(self.trace_dir)
            for step in SessionStream(layout.events_file(folder), lambda _, data: data).steps()
            for span in step.spans
        }

    def owed_of(self, words: str) -> set[SpanId]:
        """The spans with these words in them."""
        return {key for key, span in self.owed().items() if words.encode() in msgspec.json.encode(span)}

    def assert_all_arrived_once(self, but_for: set[SpanId] = frozenset()) -> None:  # type: ignore[assignment]
        stored, owed = self._backend.stored, Counter(self.owed().keys() - but_for)
        assert stored == owed, f"missing: {owed - stored}, too much: {stored - owed}"

    def account(self) -> Account:
        state = State(layout.state_file(self.trace_dir))
        try:
            return state.account(1)
        finally:
            state.close()

    def counter(self, name: str) -> int:
        return self.account().counters.get(name, 0)

    def fates(self) -> list[str]:
        """Of each request in flight, whether it may have been sent: `unknown` or `unsent`."""
        state = State(layout.state_file(self.trace_dir))
        try:
            return [batch.fate for batch in state.in_flight(1)]
        finally:
            state.close()

    def condition(self) -> str:
        """How the sink is said to be doing, in a word and in detail."""
        condition = self.account().condition
        return f"{condition.state}: {condition.detail}" if condition else ""

    def dead(self) -> dict[SpanId, str]:
        """The dead letters, with their reasons."""
        return {(letter.ref.trace_id, letter.ref.span_id): letter.reason for letter in self.dead_letters()}

    def dead_letters(self) -> list[DeadLetter]:
        state = State(layout.state_file(self.trace_dir))
        try:
            return state.dead.of(1)
        finally:
            state.close()

    def said(self) -> list[str]:
        """Every line of the log."""
        return [record.getMessage() for record in self._log.records if record.name == "tracebridge"]

    def said_of_trouble(self) -> list[str]:
        """The lines that say that something is wrong."""
        return [line for line in self.said() if not line.endswith("works again")]

    def assert_keeps_secrets(self) -> None:
        """Neither the log nor the state holds the credentials."""
        for text in (*self.said(), *self.dead().values(), self.condition()):
            assert TOKEN not in text, text
            assert "\n" not in text, text


def otel(url: str, **more: object) -> SinkSettings:
    """An `otel` sink, over HTTP unless told otherwise, without a reader."""
    given = {"endpoint": url, "timeout": PATIENT_S, "headers": {"authorization": Secret(f"Bearer {TOKEN}")}}
    return _sink("otel", otel_type, OtelSettings(**{**given, **more}))  # type: ignore[arg-type]


def langfuse(url: str, public_key: str, secret_key: str, timeout: float = PATIENT_S) -> SinkSettings:
    settings = LangfuseSettings(
        host=url, public_key=public_key, secret_key=Secret(secret_key), timeout=timeout, visibility_lag=0.01
    )
    return _sink("langfuse", langfuse_type, settings)


def _sink(name: str, sink_type: SinkType, settings: msgspec.Struct) -> SinkSettings:
    return SinkSettings(name=name, type=name, enabled=True, policy=Policy(), settings=settings, sink_type=sink_type)

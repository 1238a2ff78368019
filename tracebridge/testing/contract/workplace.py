"""`Workplace`: an agent that records, and the real delivery that brings what it recorded to the backend under test."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from tracebridge import policy as policies
from tracebridge.config import Settings, SinkSettings
from tracebridge.delivery.background import BackgroundShipper
from tracebridge.delivery.pace import FullSpeed
from tracebridge.delivery.state import State
from tracebridge.journal import layout
from tracebridge.policy import Policy
from tracebridge.recording.tracer import Tracer
from tracebridge.session_stream import SessionStream
from tracebridge.sink import Capabilities, Reader, Sink, SinkType
from tracebridge.span import Span
from tracebridge.testing.contract.backend import BackendUnderTest, SpanId

NAME: Final = "under-test"
SPANS_A_SESSION: Final = 5
"""The spans of one call of `Workplace.record`."""
_LOOK_EVERY_S: Final = 0.1
_PATIENCE_S: Final = 45.0
_POLL_S: Final = 0.01


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """What delivery says it has done."""

    dead: Mapping[SpanId, str]
    """The dead letters, each with its reason."""
    possible_repeats: int
    """How many spans it has counted as perhaps there twice."""


class Workplace:
    """A trace folder, one tracer that writes to it, and shippers that come and go."""

    def __init__(self, folder: Path, backend: BackendUnderTest, spans_a_request: int = SPANS_A_SESSION) -> None:
        """Little goes out at once, `spans_a_request`, so that few sessions make many requests."""
        self._backend = backend
        sink = SinkSettings(
            name=NAME,
            type=NAME,
            enabled=True,
            policy=Policy(),
            settings=backend.settings,
            sink_type=_FewAtOnce(backend.sink_type, spans_a_request),
        )
        self._settings = Settings(trace_dir=folder / "traces", sinks=(sink,), delivery="external", capture=Policy())
        self._tracer = Tracer(self._settings)
        self._recorded = 0

    def record(self, sessions: int = 1, marks: Mapping[int, str] | None = None) -> None:
        """Record sessions of `SPANS_A_SESSION` spans; by its number, a session's tool is called with a mark."""
        for number in range(sessions):
            self._recorded += 1
            with (
                self._tracer.trace_session(f"contract-{self._recorded}", {"plan": "pro"}, user_id="ada") as session,
                self._tracer.trace_turn(session, f"question {self._recorded}") as turn,
            ):
                with session.llm_call("gpt-4o", [{"role": "user", "content": "Where is my order?"}]) as call:
                    call.finish("Let me see.", tokens={"prompt": 12, "completion": 4})
                with session.tool_call("look_up", {"order": (marks or {}).get(number, "none")}) as call:
                    call.finish({"status": "shipped"})
                session.log_thinking("It was shipped.")
                turn.output = "It was shipped."

    def expected(self) -> dict[SpanId, Span]:
        """What the backend should hold, told from the journal alone."""
        spans: dict[SpanId, Span] = {}
        for folder in layout.session_folders(self._settings.trace_dir):
            stream = SessionStream(layout.events_file(folder), partial(policies.apply, Policy()))
            found = [span for step in stream.steps() for span in step.spans]
            spans.update({(span.trace_id, span.span_id): span for span in found})
        return spans

    @contextmanager
    def shipping(self) -> Iterator[BackgroundShipper]:
        """A shipper that goes on in the background."""
        shipper = BackgroundShipper(self._settings, FullSpeed)
        shipper.start()
        try:
            yield shipper
        finally:
            shipper.stop(0.0)

    def finish(self, shipper: BackgroundShipper, *, goes_on: bool = False) -> None:
        """Wait until everything is delivered.

        An agent that `goes_on` records more meanwhile: what is sent later can prove that a request of unknown fate
        did not arrive.
        """
        deadline = time.monotonic() + _PATIENCE_S
        while left := shipper.flush(_LOOK_EVERY_S):
            assert time.monotonic() < deadline, f"{left} events were not delivered: {shipper.troubles()}"
            if goes_on:
                self.record()
            # a sink that cannot work is not waited for
            time.sleep(_LOOK_EVERY_S)

    def deliver(self, *, goes_on: bool = False) -> None:
        """Ship until everything is delivered."""
        with self.shipping() as shipper:
            self.finish(shipper, goes_on=goes_on)

    def account(self) -> Account:
        """What delivery has written down."""
        state = State(layout.state_file(self._settings.trace_dir))
        try:
            target = state.target(NAME, self._settings.sinks[0].endpoint)
            dead = {(letter.ref.trace_id, letter.ref.span_id): letter.reason for letter in state.dead.of(target)}
            return Account(dead=dead, possible_repeats=state.account(target).counters.get("possible_repeats", 0))
        finally:
            state.close()

    def check_arrived(self, dead: Iterable[SpanId] = ()) -> Account:
        """Every span is at the backend, those that are `dead` with a reason excepted, and no oftener than it may."""
        owed = self.expected().keys() - set(dead)
        stored = _stored_in_the_end(self._backend, owed)
        account = self.account()
        assert owed - stored.keys() == set(), "spans are lost"
        assert stored.keys() - owed == set(), "the backend holds what was not to be sent, or what is a dead letter"
        assert account.dead.keys() == set(dead), "dead letters are those spans that were refused, and no others"
        assert all(account.dead.values()), "each dead letter has its reason"
        repeats = sum(stored.values()) - len(stored)
        if self._backend.keeps_one_copy:
            assert repeats == 0, "spans are there twice"
        else:
            assert repeats <= account.possible_repeats, "spans are there twice and were not counted"
        return account


def _stored_in_the_end(backend: BackendUnderTest, owed: Iterable[SpanId]) -> Counter[SpanId]:
    """Every stored copy, once all that is owed is there or has had its time."""
    wanted = set(owed)
    deadline = time.monotonic() + 5.0 + 2 * backend.capabilities.visibility_lag_s
    while not wanted <= set(backend.stored()) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    # a second copy may be on its way for as long
    time.sleep(backend.capabilities.visibility_lag_s)
    return Counter(backend.stored())


class _FewAtOnce:
    """The same sink type, whose requests carry few spans."""

    def __init__(self, sink_type: SinkType, spans_a_request: int) -> None:
        self._sink_type = sink_type
        self._spans_a_request = spans_a_request

    @property
    def settings(self) -> type[msgspec.Struct]:
        return self._sink_type.settings

    @property
    def environment(self) -> Mapping[str, Sequence[str]]:
        return self._sink_type.environment

    @property
    def extra(self) -> str:
        return self._sink_type.extra

    def capabilities(self, settings: msgspec.Struct) -> Capabilities:
        declared = self._sink_type.capabilities(settings)
        fewer = min(self._spans_a_request, declared.max_request_spans)
        return msgspec.structs.replace(declared, max_request_spans=fewer)

    def endpoint(self, settings: msgspec.Struct) -> str:
        return self._sink_type.endpoint(settings)

    def open_sink(self, settings: msgspec.Struct) -> Sink:
        return self._sink_type.open_sink(settings)

    def open_reader(self, settings: msgspec.Struct) -> Reader:
        return self._sink_type.open_reader(settings)

"""What comes after a death: the next process records and ships, and then everything must be where it belongs, once."""

from __future__ import annotations

import json
import time
from collections import Counter
from functools import partial
from pathlib import Path

import msgspec

from tests.durability.ledger import noted, spans_of
from tests.durability.place import REQUEST_SPANS, Place
from tests.durability.scenarios import record, the_next_day
from tracebridge import Tracer
from tracebridge import policy as policies
from tracebridge.delivery.background import BackgroundShipper
from tracebridge.delivery.pace import FullSpeed
from tracebridge.delivery.shipper import MAX_IN_FLIGHT
from tracebridge.delivery.state import Account, State
from tracebridge.delivery.watch import INCOMPLETE_GRACE_NS
from tracebridge.journal import layout
from tracebridge.session_stream import SessionStream
from tracebridge.span import Span
from tracebridge.validation import Validator, compare

SpanId = tuple[str, str]

SECONDS = 20.0
"""How long everything may take to arrive."""


class Owed:
    """What the journals of a place say that its backend should hold, also those that are gone by now."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._spans: dict[SpanId, Span] = {}
        self._events: dict[tuple[Path, bytes], int] = {}
        self.open_sessions: list[str] = []
        """In which something was open when the journals were last read."""

    def note(self) -> None:
        """Read the journals that are there now."""
        self.open_sessions = []
        for folder in self._place.session_folders():
            file = layout.events_file(folder)
            stream = SessionStream(file, partial(policies.apply, self._place.sink.policy))
            spans = [span for step in stream.steps() for span in step.spans]
            spans += stream.expire(time.time_ns() - INCOMPLETE_GRACE_NS)
            self._spans.update(((span.trace_id, span.span_id), span) for span in spans)
            lines = file.read_bytes().split(b"\n")
            # a file that was removed and begun anew is another one
            self._events[file, lines[0]] = sum(map(_is_json, lines))
            if not stream.is_idle:
                self.open_sessions.append(layout.session_id_of(folder))

    def spans(self) -> list[Span]:
        """All of them; every event of the journals, counted by another way of reading them, is in one."""
        spans = list(self._spans.values())
        assert self.open_sessions == []
        assert sum((span.opened is not None) + (span.closed is not None) for span in spans) == sum(
            self._events.values()
        )
        return spans


def check_what_was_recorded(place: Place) -> None:
    """The journal holds whole events, and every one that the dead process was told to be recorded."""
    told = place.progress.stat().st_size if place.progress.exists() else 0
    found = 0
    for folder in place.session_folders():
        *whole, unfinished = layout.events_file(folder).read_bytes().split(b"\n")
        found += len([json.loads(line) for line in whole])
        assert unfinished == b"", "an event is written by one call, so a killed process leaves none in part"
    assert told <= found <= told + 1, f"{found} events are in the journal, {told} were told to be"


def recover(place: Place, owed: Owed) -> None:
    """Record another session, go on with those that were there, and ship until nothing is left.

    The runs that the death has left open are over once a later run of their session begins the next day.
    """
    place = msgspec.structs.replace(place, delivery="external")
    _name_old_traces(place)
    settings = place.settings
    shipper = BackgroundShipper(settings, FullSpeed)
    shipper.start()
    try:
        _record_until_nothing_is_left(place, owed, shipper, "after")
        tracer = Tracer(settings, wall_ns=the_next_day)
        for session_id in sorted({f"{place.prefix}-0", *owed.open_sessions}):
            record(tracer, session_id)
        tracer.shutdown()
        _record_until_nothing_is_left(place, owed, shipper, "later")
    finally:
        shipper.stop(0.0)


def _name_old_traces(place: Place) -> None:
    """As `backfill` does when it is run again."""
    if place.old.exists():
        state = State(layout.state_file(place.trace_dir))
        state.folder(place.old)
        state.close()


def _record_until_nothing_is_left(place: Place, owed: Owed, shipper: BackgroundShipper, name: str) -> None:
    """A batch of unknown fate may need something that is sent after it, to be told absent."""
    tracer = Tracer(place.settings)
    deadline = time.monotonic() + SECONDS
    number = 0
    left = 1
    while left:
        assert time.monotonic() < deadline, f"{left} events are not delivered: {shipper.troubles()}"
        record(tracer, f"{place.prefix}-{name}-{number}")
        owed.note()
        left = shipper.flush(max(0.1, 3 * place.lag_s))
        number += 1
    tracer.shutdown()


def check_that_each_is_stored_once(spans: list[Span], copies: Counter[SpanId]) -> None:
    """`copies`: how often the backend stores each span, of all that came since the run began."""
    wanted = {(span.trace_id, span.span_id): f"{span.kind} of {span.session_id}" for span in spans}
    lost = [name for id, name in wanted.items() if id not in copies]
    repeated = [f"{count} times {wanted.get(id, id)}" for id, count in copies.items() if count > 1]
    foreign = [id for id in copies if id not in wanted]
    assert (lost, repeated, foreign) == ([], [], []), f"of {len(spans)}: {lost=}, {repeated=}, {foreign=}"


def check_the_account(place: Place, spans: list[Span]) -> Account:
    """Everything is confirmed, and counted once."""
    sink = place.sink
    assert sink.sink_type is not None
    assert sink.settings is not None
    state = State(layout.state_file(place.trace_dir))
    try:
        account = state.account(state.target(sink.name, sink.sink_type.endpoint(sink.settings)))
        problems = [problem for folder, *problem in state.problems() if folder != place.old.resolve()]
    finally:
        state.close()
    assert problems == [], f"{problems=}"
    assert (account.in_flight_spans, account.dead_spans) == (0, 0), f"{account=}"
    assert account.counters["confirmed_spans"] == len(spans), f"of {len(spans)}: {account=}"
    return account


def check_that_nothing_is_found(place: Place) -> None:
    """`validate` compares everything that the journal still holds, and finds nothing."""
    validator = Validator(place.sink, place.trace_dir)
    try:
        verdict = validator.validate()
    finally:
        validator.close()
    assert (verdict.findings, verdict.uncompared) == ((), ()), f"{verdict=}"
    assert verdict.sessions == len(place.session_folders())
    assert verdict.exit_code == 0
    assert verdict.expected == verdict.observed == verdict.equal


def check_that_repeats_are_identical_and_counted(place: Place, spans: list[Span], account: Account) -> None:
    """The ledger holds every span, and twice only whole requests that may have been out when the process died."""
    requests = Counter(noted(place.ledger))
    observed = [span for request in requests for span in spans_of(request)]
    comparison = compare(spans, observed, ())
    assert comparison.findings == (), f"{comparison.findings=}"
    assert len(observed) == len(spans)
    repeated = {request: count for request, count in requests.items() if count > 1}
    assert set(repeated.values()) <= {2}, f"{repeated=}"
    assert len(repeated) <= MAX_IN_FLIGHT, f"{repeated=}"
    counted = account.counters.get("possible_repeats", 0)
    repeats = sum(len(spans_of(request)) for request in repeated)
    assert repeats <= counted <= MAX_IN_FLIGHT * REQUEST_SPANS, f"{repeats=}, {counted=}"


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True

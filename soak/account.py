"""`account_of`: every event in the journal, and where it is."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec

from soak.chaos import LONGEST_LAG_S, Chaos
from tracebridge.config import SinkSettings, load
from tracebridge.delivery.state import State
from tracebridge.event import Json
from tracebridge.journal import layout
from tracebridge.journal.reader import read_journal
from tracebridge.session_stream import SessionStream
from tracebridge.sink import Query, Reader

SpanId = tuple[str, str]
_FAR_FUTURE_NS = 4_000_000_000_000_000_000


class SinkAccount(msgspec.Struct, frozen=True, kw_only=True):
    """What one sink holds of what it is owed."""

    name: str
    owed: int
    once: int
    missing: int
    more_than_once: int
    not_owed: int
    dead: int
    possible_repeats: int


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """What became of everything."""

    did: dict[str, int]
    sessions: int
    events: int
    broken_lines: int
    open_events: int
    gaps: int
    """Numbers that are missing in the numbering of a run's events."""
    told_lost: int
    """Events of which the agents were told that they could not be written."""
    sinks: list[SinkAccount]

    @property
    def is_clean(self) -> bool:
        """Whether every event is accounted for, exactly once."""
        whole = all(
            sink.once == sink.owed and not (sink.missing or sink.more_than_once or sink.not_owed or sink.dead)
            for sink in self.sinks
        )
        return whole and self.gaps <= self.told_lost and self.events > 0

    def print(self) -> None:
        """For people."""
        print("\nwhat happened")
        for name, count in sorted(self.did.items()):
            print(f"  {count:7,}  {name}")
        print("\nthe journal")
        print(f"  {self.sessions:7,}  sessions")
        print(f"  {self.events:7,}  events; {self.open_events:,} of them are of spans that are still open")
        print(f"  {self.broken_lines:7,}  broken lines, of killed writers and full disks")
        print(f"  {self.gaps:7,}  events missing in the numbering of their runs")
        print(f"  {self.told_lost:7,}  times an agent was told that something could not be written")
        for sink in self.sinks:
            print(f"\n{sink.name}")
            print(f"  {sink.owed:7,}  spans owed")
            print(f"  {sink.once:7,}  there exactly once")
            print(f"  {sink.missing:7,}  missing")
            print(
                f"  {sink.more_than_once:7,}  there more than once ({sink.possible_repeats:,} possible repeats counted)"
            )
            print(f"  {sink.not_owed:7,}  not owed")
            print(f"  {sink.dead:7,}  dead letters")
        print(
            "\n"
            + ("every event is accounted for, exactly once" if self.is_clean else "NOT EVERYTHING IS ACCOUNTED FOR")
        )


def account_of(chaos: Chaos) -> Account:
    """Read the journal and both backends."""
    settings = load(chaos.config, {})
    owed: set[SpanId] = set()
    sequences: dict[str, set[int]] = {}
    sessions = events = broken = still_open = 0
    for folder in layout.session_folders(settings.trace_dir):
        sessions += 1
        path = layout.events_file(folder)
        spans = 0
        for line in _lines(path):
            broken += bool(line[0])
            if line[1] is not None:
                events += 1
                run_id, seq = line[1]
                sequences.setdefault(run_id, set()).add(seq)
        stream = SessionStream(path, _everything)
        for step in stream.steps():
            for span in step.spans:
                owed.add((span.trace_id, span.span_id))
                spans += (span.opened is not None) + (span.closed is not None)
        still_open += stream.events_read - spans
    return Account(
        did=dict(chaos.did),
        sessions=sessions,
        events=events,
        broken_lines=broken,
        open_events=still_open,
        gaps=sum(max(numbers) + 1 - len(numbers) for numbers in sequences.values()),
        told_lost=sum(len(notes.read_text().splitlines()) for notes in chaos.notes.iterdir()),
        sinks=[_sink_account(sink, settings.trace_dir, owed) for sink in settings.enabled_sinks],
    )


def _lines(path: Path) -> Iterator[tuple[str, tuple[str, int] | None]]:
    with path.open("rb") as file:
        for line in read_journal(file, 0):
            event = line.event
            yield line.problem, None if event is None else (event.run_id, event.fields["seq"])


def _sink_account(sink: SinkSettings, trace_dir: Path, owed: set[SpanId]) -> SinkAccount:
    reader = sink.open_reader()
    try:
        held = _held(reader, owed)
    finally:
        reader.close()
    state = State(layout.state_file(trace_dir))
    try:
        account = state.account(state.target(sink.name, sink.endpoint))
    finally:
        state.close()
    return SinkAccount(
        name=sink.name,
        owed=len(owed),
        once=sum(held[span] == 1 for span in owed),
        missing=sum(span not in held for span in owed),
        more_than_once=sum(count > 1 for count in held.values()),
        not_owed=sum(span not in owed for span in held),
        dead=account.dead_spans,
        possible_repeats=account.counters.get("possible_repeats", 0),
    )


def _held(reader: Reader, owed: set[SpanId]) -> Counter[SpanId]:
    """How often the backend holds each span, once it has caught up with what it accepted while it was behind."""
    query = Query(start_ns=0, end_ns=_FAR_FUTURE_NS, ids_only=True)
    deadline = time.monotonic() + 2 * LONGEST_LAG_S
    while True:
        held = Counter((span.trace_id, span.span_id) for span in reader.read(query))
        if owed <= held.keys() or time.monotonic() > deadline:
            return held


def _everything(event_type: str, data: dict[str, Json]) -> dict[str, Json]:
    return data

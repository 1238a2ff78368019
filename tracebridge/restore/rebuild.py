"""`rebuild`: the events of one session, from the spans that tracebridge made of them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence

import msgspec

from tracebridge.assembler import Assembler, Place, disassemble
from tracebridge.assembler.deadlines import LATEST_NS
from tracebridge.event import Json, NotAnEventError, event_from_json, timestamp_ns
from tracebridge.restore.omission import omissions_of
from tracebridge.sink import Loss
from tracebridge.span import Span
from tracebridge.validation import Comparison, compare


class Rebuilt(msgspec.Struct, frozen=True, kw_only=True):
    """A session's events, and what is known of them."""

    events: list[dict[str, Json]]
    """In file order."""
    shortfalls: dict[str, int]
    """By name, what is not as it was; see `tracebridge.restore.record`."""
    losses: dict[str, int]
    """By the name of a declared loss, how many spans show less than their events."""


class _Placed(msgspec.Struct, frozen=True):
    """An event and its place among the events of its file."""

    ordinal: int
    event: dict[str, Json]

    @property
    def run_id(self) -> str:
        return str(self.event.get("run_id") or "")

    @property
    def time_ns(self) -> int:
        return timestamp_ns(self.event["timestamp"])


class _File(msgspec.Struct, kw_only=True):
    """What is known so far to have stood in one file."""

    last: int
    """The last place that is taken in it."""
    taken: set[int]
    entries: list[_Placed]


def rebuild(spans: Sequence[Span], losses: Sequence[Loss], tells_all: Callable[[Span], bool]) -> Rebuilt:
    """Rebuild a session's events; each span is given once.

    `tells_all` says of a span whether it was sent under rules that left nothing out of its events.
    """
    placed: list[_Placed] = []
    shortfalls: dict[str, int] = {}
    for span in spans:
        try:
            of_span = _placed_events(span)
        except NotAnEventError:
            shortfalls["unreadable"] = shortfalls.get("unreadable", 0) + 1
            continue
        placed += of_span
        if not tells_all(span):
            for name, count in omissions_of([entry.event for entry in of_span]).items():
                shortfalls[name] = shortfalls.get(name, 0) + count
    files = _files_of(placed)
    missing = sum(file[-1].ordinal + 1 - len({entry.ordinal for entry in file}) for file in files)
    if missing:
        shortfalls["missing"] = missing
    later = sum(map(len, files[1:]))
    if later:
        shortfalls["several_files"] = later
    events = [entry.event for file in files for entry in file]
    met: dict[str, int] = {}
    # with gaps, or under several sets of rules, spans are not made again as they were
    if not missing and not later and len({span.fingerprint for span in spans}) == 1:
        unsure = {_place_of(span) for span in spans if _may_look_repeated(span) and not tells_all(span)}
        comparison = _made_again(events, [span for span in spans if _place_of(span) not in unsure], losses, unsure)
        met = dict(comparison.losses)
        if comparison.defects:
            shortfalls["changed"] = len(comparison.defects)
    return Rebuilt(events=events, shortfalls=shortfalls, losses=met)


def _placed_events(span: Span) -> list[_Placed]:
    ordinals = sorted(edge.ordinal for edge in (span.opened, span.closed) if edge is not None)
    placed = [_Placed(ordinal, event) for ordinal, event in zip(ordinals, disassemble([span]), strict=True)]
    for entry in placed:
        # what somebody changed at the backend need not be an event any more
        event_from_json(entry.event)
    return placed


def _files_of(placed: Iterable[_Placed]) -> list[list[_Placed]]:
    """The events of each file of the session, in order: one, but where two events have one place.

    Then a session has been recorded in a folder, say, and later in another one. Which run, or part of one, stood where
    is told by the places that they take, and the file that began first comes first.
    """
    in_order = sorted(placed, key=lambda entry: entry.ordinal)
    if not in_order:
        return []
    if len({entry.ordinal for entry in in_order}) == len(in_order):
        return [in_order]
    runs: dict[str, list[_Placed]] = {}
    for entry in in_order:
        runs.setdefault(entry.run_id, []).append(entry)
    files: list[_File] = []
    parts = [part for run in runs.values() for part in _parts_of(run)]
    for run in sorted(parts, key=lambda part: min(entry.time_ns for entry in part)):
        places = {entry.ordinal for entry in run}
        last = max(places)
        free = [file for file in files if file.taken.isdisjoint(places)]
        if not free:
            files.append(_File(last=last, taken=places, entries=run))
            continue
        # where it leaves the fewest places empty: behind a file that is too short they are free as well
        file = min(free, key=lambda file: max(0, last - file.last))
        file.last = max(file.last, last)
        file.taken.update(places)
        file.entries.extend(run)
    return [sorted(file.entries, key=lambda entry: entry.ordinal) for file in files]


def _parts_of(run: Iterable[_Placed]) -> list[list[_Placed]]:
    """The events of a run, in the order of their times: a new part begins where a place comes again.

    Then the file was moved away while the run went on, in another one.
    """
    parts: list[list[_Placed]] = []
    taken: set[int] = set()
    for entry in sorted(run, key=lambda entry: (entry.time_ns, entry.ordinal)):
        if not parts or entry.ordinal in taken:
            parts.append([])
            taken = set()
        parts[-1].append(entry)
        taken.add(entry.ordinal)
    return parts


def _may_look_repeated(span: Span) -> bool:
    """Whether it is an answer without a call: of what is left of two different ones, both may say the same."""
    return span.kind == "llm" and span.extent == "late"


def _place_of(span: Span) -> int:
    """The place of the span's latest event."""
    return max(edge.ordinal for edge in (span.opened, span.closed) if edge is not None)


def _made_again(
    events: Iterable[dict[str, Json]], spans: Iterable[Span], losses: Sequence[Loss], unsure: Container[int]
) -> Comparison:
    """Compare the spans with those that the events give, but for the events at the places that are `unsure`."""
    assembler = Assembler()
    made: list[Span] = []
    for ordinal, line in enumerate(events):
        made += assembler.feed(event_from_json(line), Place(0, ordinal))
    made += assembler.expire(LATEST_NS)
    # what is still open has not been sent, and is made again as incomplete
    sent = {(span.trace_id, span.span_id) for span in spans}
    wanted = [span for span in made if (span.trace_id, span.span_id) in sent and _place_of(span) not in unsure]
    return compare(wanted, spans, losses)

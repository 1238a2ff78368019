"""`tracebridge status`: what is delivered, pending, refused, and what is wrong."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from tracebridge.cli.command import Commands, add_command, print_json, say, settings_of
from tracebridge.cli.times import as_text

if TYPE_CHECKING:
    from pathlib import Path

    from tracebridge.config import Settings, SinkSettings
    from tracebridge.delivery.accounting import Accounting
    from tracebridge.delivery.state import State
    from tracebridge.delivery.switched_off import StillOwed

_DESCRIPTION = """\
Tells, for each sink, what it has taken, what is in flight or still to be read, what it refused and what keeps it from
taking more; and, for the journal, how much there is and which lines are broken.
"""

_MOST_PROBLEMS = 10
_MOST_REASONS = 5


class SinkStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How a sink is doing."""

    name: str
    enabled: bool
    endpoint: str
    state: str
    """`shipping`, `idle`, `backing off`, `paused`, `failing`, `never shipped` or `switched off`."""
    detail: str
    """Why it backs off or is paused."""
    since: str
    """When that state began, ISO 8601; empty if it never did."""
    until: str
    """When it is tried again, ISO 8601; empty while nothing is waited for."""
    events: Accounting
    """Where the events of the journals are."""
    oldest: str
    """When the oldest event was written that it has not taken and could have, ISO 8601; empty if there is none."""
    delivered_spans: int
    delivered_events: int
    in_flight_spans: int
    unread_bytes: int
    """Bytes of journals that the sink has not been sent."""
    dead_spans: int
    rejected: dict[str, int]
    """How many spans are dead letters, by reason."""
    discarded_spans: int
    cut_spans: int
    """Spans that were cut because they, or a value in them, were too large."""
    possible_repeats: int
    """Spans that may be there twice."""
    compared_sessions: int
    """Sessions that a validation has compared."""
    defective_sessions: int
    """Those of them in which something was found the last time."""
    shipper_pid: int | None
    """The process that holds the sink's lock, if one does."""


class DefectiveSink(msgspec.Struct, frozen=True, kw_only=True):
    """A sink that is switched on and cannot be used."""

    name: str
    defect: str
    """What is wrong with its plug-in."""


class JournalStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What there is in one folder."""

    folder: str
    is_gone: bool
    """Whether it was backfilled, and is not there any more."""
    sessions: int
    bytes: int
    broken_lines: int
    """Lines that could not be read; of one session not too many are counted."""
    apart: list[str]
    """Files beside its journals that may hold more of them, as those that were rotated away, and that nobody reads."""
    lost_events: dict[str, int]
    """Events that could not be written, by what stood in the way."""


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """All that `tracebridge status` tells."""

    journals: list[JournalStatus]
    sinks: list[SinkStatus]
    switched_off: list[StillOwed]
    """Sinks that are switched off and have not got all that they are owed."""
    defective: list[DefectiveSink]
    """Sinks whose plug-in does not work; they are delivered to again once it does."""
    problems: list[str]
    """Broken journal lines: file, byte offset, what is wrong."""


def add_to(commands: Commands) -> None:
    """Describe the command."""
    parser = add_command(commands, "status", run, "what is delivered, pending and refused", _DESCRIPTION)
    parser.add_argument("--json", action="store_true", help="print it as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Tell."""
    found = status_of(settings_of(arguments))
    if arguments.json:
        print_json(found)
    else:
        print_status(found)
    return 0


def status_of(settings: Settings) -> Status:
    """What there is to tell of a configuration's journal and sinks."""
    from tracebridge.delivery.state import State
    from tracebridge.delivery.switched_off import still_owed
    from tracebridge.journal import layout

    state = State(layout.state_file(settings.trace_dir))
    try:
        own = state.folder(settings.trace_dir)
        problems = state.problems()
        broken = Counter(folder for folder, *_ in problems)
        sinks, defective = _sinks_of(settings, state)
        return Status(
            journals=[
                _journal_status(path, broken[path], is_own=number == own) for number, path in state.folders().items()
            ],
            sinks=sinks,
            defective=defective,
            switched_off=still_owed(state, settings),
            problems=[
                f"{layout.events_file(folder / session)}: byte {offset}: {problem}"
                for folder, session, offset, problem in problems
            ],
        )
    finally:
        state.close()


def print_status(found: Status) -> None:
    """Print the status for people."""
    for journal in found.journals:
        say(f"journal {journal.folder}: {journal.sessions:,} sessions, {journal.bytes:,} bytes")
        if journal.is_gone:
            print("  gone      it was backfilled, and is not there any more; `tracebridge forget --folder` gives it up")
        for part in journal.apart[:_MOST_PROBLEMS]:
            say(f"  not read  {part}")
        if len(journal.apart) > _MOST_PROBLEMS:
            print(f"            and {len(journal.apart) - _MOST_PROBLEMS:,} more such files: --json tells all")
        for why, count in journal.lost_events.items():
            say(f"  lost      {count:,} events could not be written ({why})")
    for sink in found.sinks:
        if sink.enabled:
            _print_sink(sink)
    for defect in found.defective:
        say(f"{defect.name}: cannot be used: {defect.defect}")
    for owed in found.switched_off:
        say(f"{owed.sink} -> {owed.endpoint}: switched off")
        say(f"  owed      {owed.sessions:,} sessions, {owed.events:,} events in flight; kept until it is switched on")
        say(f"            again or given up with `tracebridge forget {owed.sink}`")
    if not found.defective and not any(sink.enabled for sink in found.sinks):
        print("no sink but the journal is switched on")
    for problem in found.problems[:_MOST_PROBLEMS]:
        say(f"broken line: {problem}")
    if len(found.problems) > _MOST_PROBLEMS:
        print(f"… and {len(found.problems) - _MOST_PROBLEMS:,} more broken lines: --json tells all")


def _print_sink(sink: SinkStatus) -> None:
    events = sink.events
    until = f"; tried again at {sink.until}" if sink.until else ""
    say(f"{sink.name} -> {sink.endpoint}: {sink.state}" + (f" ({sink.detail}{until})" if sink.detail else ""))
    say(f"  delivered {sink.delivered_spans:,} spans of {events.confirmed:,} of {events.written:,} events")
    say(f"  in flight {sink.in_flight_spans:,} spans of {events.in_flight:,} events")
    say(f"  pending   {events.unread:,} events unread, {events.open:,} of spans that are still open")
    if sink.oldest:
        say(f"  oldest    of what it has not taken is of {sink.oldest}")
    if events.left_out:
        say(f"  left out  {events.left_out:,} events by the policy")
    for reason, count in list(sink.rejected.items())[:_MOST_REASONS]:
        say(f"  dead      {count:,} spans: {reason}")
    if sink.rejected:
        say(f"            {sink.dead_spans:,} in all: see `tracebridge dead list`")
    if sink.discarded_spans:
        say(f"  discarded {sink.discarded_spans:,} spans that were dead letters")
    if sink.cut_spans:
        say(f"  cut       {sink.cut_spans:,} spans, which were too large or held too large a value")
    if sink.possible_repeats:
        say(f"  repeats   {sink.possible_repeats:,} spans may be there twice")
    if sink.defective_sessions:
        found = f"{sink.defective_sessions:,} of {sink.compared_sessions:,} compared sessions"
        say(f"  findings  in {found}: see `tracebridge validations`")
    if sink.shipper_pid is not None:
        say(f"  shipper   process {sink.shipper_pid}")


def _journal_status(path: Path, broken_lines: int, *, is_own: bool) -> JournalStatus:
    from tracebridge.delivery.backlog import size_of
    from tracebridge.journal import layout
    from tracebridge.journal.lost import lost_events
    from tracebridge.journal.survey import parts_apart

    sizes = [size_of(layout.events_file(folder)) for folder in layout.session_folders(path)]
    return JournalStatus(
        folder=str(path),
        is_gone=not is_own and not path.is_dir(),
        sessions=len(sizes),
        bytes=sum(sizes),
        broken_lines=broken_lines,
        apart=[f"{part.path}: {part.reason}" for _, part in parts_apart(path)],
        lost_events=lost_events(path),
    )


def _sinks_of(settings: Settings, state: State) -> tuple[list[SinkStatus], list[DefectiveSink]]:
    sinks: list[SinkStatus] = []
    defective = [DefectiveSink(name=sink.name, defect=sink.defect) for sink in settings.defective_sinks]
    for sink in settings.sinks:
        if not sink.enabled:
            sinks.append(_switched_off(sink))
        elif not sink.defect:
            try:
                endpoint = sink.endpoint
            except Exception as error:  # a plug-in's defect must not hide how the others are doing
                words = f"it does not tell where it sends to ({type(error).__name__}: {error})"
                defective.append(DefectiveSink(name=sink.name, defect=words))
            else:
                sinks.append(_sink_status(sink, endpoint, settings.trace_dir, state))
    return sinks, defective


def _sink_status(sink: SinkSettings, endpoint: str, trace_dir: Path, state: State) -> SinkStatus:
    from tracebridge.delivery.accounting import accounting_of
    from tracebridge.delivery.backlog import Backlog
    from tracebridge.delivery.lock import shipper_lock
    from tracebridge.delivery.records import Condition

    target = state.target(sink.name, endpoint)
    with state.moment():
        account = state.account(target)
        unread = list(Backlog(state, target, sink.policy).unread())
    events = accounting_of(state, sink.policy, account, unread)
    compared = state.evidence.compared(target)
    condition = account.condition or Condition(state="never shipped", detail="", since_ns=0)
    return SinkStatus(
        name=sink.name,
        enabled=True,
        endpoint=account.endpoint,
        state=condition.state,
        detail=condition.detail,
        since=as_text(condition.since_ns),
        until=as_text(condition.until_ns) if condition.until_ns > time.time_ns() else "",
        events=events,
        oldest=as_text(events.oldest_ns),
        delivered_spans=account.counters.get("confirmed_spans", 0),
        delivered_events=events.confirmed,
        in_flight_spans=account.in_flight_spans,
        unread_bytes=sum(session.size - session.offset for session in unread),
        dead_spans=account.dead_spans,
        rejected=account.dead_by_reason,
        discarded_spans=account.counters.get("discarded_spans", 0),
        cut_spans=account.counters.get("cut_spans", 0),
        possible_repeats=account.counters.get("possible_repeats", 0),
        compared_sessions=len(compared),
        defective_sessions=sum(one.defects > 0 for one in compared),
        shipper_pid=shipper_lock(trace_dir, sink.name).holder(),
    )


def _switched_off(sink: SinkSettings) -> SinkStatus:
    from tracebridge.delivery.accounting import NOTHING

    return SinkStatus(
        name=sink.name,
        enabled=False,
        endpoint="",
        state="switched off",
        detail="",
        since="",
        until="",
        events=NOTHING,
        oldest="",
        delivered_spans=0,
        delivered_events=0,
        in_flight_spans=0,
        unread_bytes=0,
        dead_spans=0,
        rejected={},
        discarded_spans=0,
        cut_spans=0,
        possible_repeats=0,
        compared_sessions=0,
        defective_sessions=0,
        shipper_pid=None,
    )

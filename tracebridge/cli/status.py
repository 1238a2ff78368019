"""`tracebridge status`: what is delivered, pending, refused, and what is wrong."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from tracebridge.cli.command import Commands, add_command, print_json, settings_of

if TYPE_CHECKING:
    from pathlib import Path

    from tracebridge.config import Settings, SinkSettings
    from tracebridge.delivery.state import State
    from tracebridge.delivery.switched_off import StillOwed

_DESCRIPTION = """\
Tells, for each sink, what it has taken, what is in flight or still to be read, what it refused and what keeps it from
taking more; and, for the journal, how much there is and which lines are broken.
"""

_MOST_PROBLEMS = 10


class SinkStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How a sink is doing."""

    name: str
    endpoint: str
    state: str
    """`shipping`, `idle`, `backing off`, `paused`, `failing`, or `never shipped`."""
    detail: str
    since: str
    """When that state began, ISO 8601; empty if it never did."""
    delivered_spans: int
    delivered_events: int
    in_flight_spans: int
    unread_bytes: int
    """Bytes of journals that the sink has not been sent."""
    dead_spans: int
    possible_repeats: int
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
    sessions: int
    bytes: int


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
        state.folder(settings.trace_dir)
        sizes = {
            number: {folder.name: layout.events_file(folder).stat().st_size for folder in layout.session_folders(path)}
            for number, path in state.folders().items()
        }
        sinks, defective = _sinks_of(settings, state)
        return Status(
            journals=[
                JournalStatus(folder=str(path), sessions=len(sizes[number]), bytes=sum(sizes[number].values()))
                for number, path in state.folders().items()
            ],
            sinks=sinks,
            defective=defective,
            switched_off=still_owed(state, settings),
            problems=[
                f"{layout.events_file(folder / session)}: byte {offset}: {problem}"
                for folder, session, offset, problem in state.problems()
            ],
        )
    finally:
        state.close()


def print_status(found: Status) -> None:
    """Print the status for people."""
    for journal in found.journals:
        print(f"journal {journal.folder}: {journal.sessions:,} sessions, {journal.bytes:,} bytes")
    for sink in found.sinks:
        print(f"{sink.name} -> {sink.endpoint}: {sink.state}" + (f" ({sink.detail})" if sink.detail else ""))
        print(f"  delivered {sink.delivered_spans:,} spans of {sink.delivered_events:,} events")
        print(f"  in flight {sink.in_flight_spans:,} spans; unread {sink.unread_bytes:,} bytes of journal")
        if sink.dead_spans:
            print(f"  dead      {sink.dead_spans:,} spans were refused for good")
        if sink.possible_repeats:
            print(f"  repeats   {sink.possible_repeats:,} spans may be there twice")
        if sink.shipper_pid is not None:
            print(f"  shipper   process {sink.shipper_pid}")
    for broken in found.defective:
        print(f"{broken.name}: cannot be used: {broken.defect}")
    for owed in found.switched_off:
        print(f"{owed.sink} -> {owed.endpoint}: switched off")
        print(f"  owed      {owed.sessions:,} sessions, {owed.events:,} events in flight; kept until it is switched on")
        print(f"            again or given up with `tracebridge forget {owed.sink}`")
    if not found.sinks and not found.defective:
        print("no sink but the journal is switched on")
    for problem in found.problems[:_MOST_PROBLEMS]:
        print(f"broken line: {problem}")
    if len(found.problems) > _MOST_PROBLEMS:
        print(f"… and {len(found.problems) - _MOST_PROBLEMS:,} more broken lines: --json tells all")


def _sinks_of(settings: Settings, state: State) -> tuple[list[SinkStatus], list[DefectiveSink]]:
    sinks: list[SinkStatus] = []
    defective = [DefectiveSink(name=sink.name, defect=sink.defect) for sink in settings.defective_sinks]
    for sink in settings.enabled_sinks:
        try:
            endpoint = sink.endpoint
        except Exception as error:  # a plug-in's defect must not hide how the others are doing
            words = f"it does not tell where it sends to ({type(error).__name__}: {error})"
            defective.append(DefectiveSink(name=sink.name, defect=words))
        else:
            sinks.append(_sink_status(sink, endpoint, settings.trace_dir, state))
    return sinks, defective


def _sink_status(sink: SinkSettings, endpoint: str, trace_dir: Path, state: State) -> SinkStatus:
    from tracebridge.delivery.backlog import Backlog
    from tracebridge.delivery.lock import shipper_lock

    target = state.target(sink.name, endpoint)
    account = state.account(target)
    condition = account.condition
    return SinkStatus(
        name=sink.name,
        endpoint=account.endpoint,
        state=condition.state if condition else "never shipped",
        detail=condition.detail if condition else "",
        since=datetime.fromtimestamp(condition.since_ns / 1e9, UTC).isoformat() if condition else "",
        delivered_spans=account.counters.get("confirmed_spans", 0),
        delivered_events=account.counters.get("confirmed_events", 0),
        in_flight_spans=account.in_flight_spans,
        unread_bytes=Backlog(state, target, sink.policy).unread_bytes(),
        dead_spans=account.dead_spans,
        possible_repeats=account.counters.get("possible_repeats", 0),
        shipper_pid=shipper_lock(trace_dir, sink.name).holder(),
    )

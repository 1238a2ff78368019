"""`tracebridge backfill DIR`: deliver a folder of old traces."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from tracebridge.cli.command import Commands, add_command, chosen_sinks, print_json, say, settings_of
from tracebridge.cli.delivery import (
    INTERRUPTED,
    InterruptedDeliveryError,
    add_options,
    deliver_all,
    exit_code_of,
    print_delivered,
    say_how_to_go_on,
)
from tracebridge.cli.progress import progress
from tracebridge.cli.times import as_age, seconds, time_given
from tracebridge.errors import TracebridgeError

if TYPE_CHECKING:
    from tracebridge.config import Settings
    from tracebridge.delivery.choice import Window
    from tracebridge.delivery.rehearsal import Rehearsed
    from tracebridge.journal.survey import Survey

_DESCRIPTION = """\
Delivers a folder of traces, old format or new, to every sink that is switched on. DIR holds `session-<id>` folders
with an `events.jsonl` each, or folders of such, one or two levels down (traces/2026-01/session-…); nothing in it is
changed.

It may be interrupted, or die, and be run again at any time: what a sink has got already is not sent again. The folder
is remembered, so that `validate` compares it too and `ship` goes on with it.
"""

_MOST_SHOWN: Final = 10


class BackfillError(TracebridgeError):
    """The folder cannot be backfilled."""


def add_to(commands: Commands) -> None:
    """Describe the command."""
    parser = add_command(commands, "backfill", run, "deliver a folder of old traces", _DESCRIPTION)
    parser.add_argument("dir", type=Path, metavar="DIR", help="a folder of `session-<id>` folders")
    parser.add_argument(
        "--dry-run", action="store_true", help="send nothing and remember nothing; count what would be sent"
    )
    parser.add_argument(
        "--since", type=time_given, metavar="TIME", help="only sessions whose first event is of then or later"
    )
    parser.add_argument(
        "--until", type=time_given, metavar="TIME", help="only sessions whose first event is earlier than that"
    )
    parser.add_argument(
        "--max-rps", type=_rate, metavar="N", help="send each sink at most N requests a second; may be a fraction"
    )
    parser.add_argument(
        "--progress",
        type=seconds,
        nargs="?",
        const=10.0,
        metavar="SECONDS",
        help="where standard error is no terminal, print how far it is every so often (default: %(const)g)",
    )
    add_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Deliver the folder."""
    from tracebridge.journal.file_system import check_file_system

    settings = settings_of(arguments)
    are_all_usable = bool(arguments.sink) or not settings.defective_sinks
    settings = msgspec.structs.replace(settings, sinks=chosen_sinks(settings, arguments.sink))
    check_file_system(settings.trace_dir)
    window = _window(arguments)
    folders, found = _surveyed(arguments.dir, window, arguments.progress)
    _check_window(settings, folders, window)
    if arguments.dry_run:
        code = _rehearse(arguments, settings, folders, window, found)
    else:
        code = _deliver(arguments, settings, folders, window, found)
    if code == 0 and (found.unread or not are_all_usable):
        return 1
    return code


def _deliver(
    arguments: argparse.Namespace, settings: Settings, folders: list[Path], window: Window, found: Survey
) -> int:
    from tracebridge.delivery.state import State
    from tracebridge.journal import layout

    if arguments.max_rps is not None:
        _check_alone(settings)
    state = State(layout.state_file(settings.trace_dir))
    state.folder(settings.trace_dir)
    for folder in folders:
        state.backfill(folder, window)
    state.close()
    try:
        delivered = deliver_all(
            settings, arguments.patience, max_rps=arguments.max_rps, lines_every_s=arguments.progress
        )
        code = exit_code_of(delivered)
    except InterruptedDeliveryError as interrupted:
        delivered, code = interrupted.delivered, INTERRUPTED
    if arguments.json:
        print_json({**msgspec.structs.asdict(found), "sinks": delivered})
    else:
        _print_survey(arguments.dir, found)
        print_delivered(delivered)
    if code == INTERRUPTED:
        say_how_to_go_on()
    return code


def _rehearse(
    arguments: argparse.Namespace, settings: Settings, folders: list[Path], window: Window, found: Survey
) -> int:
    from tracebridge.delivery.rehearsal import rehearse

    with progress("counting", "bytes", arguments.progress) as bar:
        rehearsed = rehearse(settings, folders, window, bar.update)
    if arguments.json:
        sinks = [
            {**msgspec.structs.asdict(one), "seconds": one.requests / arguments.max_rps if arguments.max_rps else None}
            for one in rehearsed
        ]
        print_json({"dry_run": True, **msgspec.structs.asdict(found), "sinks": sinks})
    else:
        _print_survey(arguments.dir, found)
        for one in rehearsed:
            _print_rehearsed(one, arguments.max_rps)
        print("nothing was sent: this was a dry run. What a backend turns out to hold already is not sent again")
    return 1 if any(one.dead for one in rehearsed) else 0


def _surveyed(root: Path, window: Window, lines_every_s: float | None) -> tuple[list[Path], Survey]:
    """The folders that hold sessions, and what there is in them."""
    from tracebridge.journal import layout
    from tracebridge.journal.survey import survey, trace_folders

    if not root.is_dir():
        raise BackfillError(f"{root}: there is no such folder")
    try:
        folders = list(trace_folders(root))
        with progress("reading", "bytes", lines_every_s) as bar:
            found = survey(root, window.holds, bar.update)
    except OSError as error:
        raise BackfillError(f"{root}: cannot be read: {error.strerror}") from error
    if not (found.sessions or found.left_out or found.unread):
        hint = ""
        if layout.events_file(root).is_file():
            hint = f"; this is the folder of one session: name the folder above it, {root.resolve().parent}"
        raise BackfillError(
            f"{root}: holds no `session-<id>` folder with an {layout.EVENTS}, nor do the folders in it{hint}"
        )
    return folders, found


def _window(arguments: argparse.Namespace) -> Window:
    from tracebridge.delivery.choice import ALWAYS, Window

    since_ns = ALWAYS.since_ns if arguments.since is None else arguments.since
    until_ns = ALWAYS.until_ns if arguments.until is None else arguments.until
    if since_ns >= until_ns:
        raise BackfillError("--until must be later than --since")
    return Window(since_ns, until_ns)


def _check_window(settings: Settings, folders: list[Path], window: Window) -> None:
    from tracebridge.delivery.choice import ALWAYS

    trace_dir = settings.trace_dir.resolve()
    if window != ALWAYS and any(folder.resolve() == trace_dir for folder in folders):
        raise BackfillError(
            f"{trace_dir}: is the trace folder itself, of which everything is delivered: --since and --until cannot "
            "be used with it"
        )


def _check_alone(settings: Settings) -> None:
    """Another process that delivers would send the folder as well, as fast as it can."""
    from tracebridge.delivery.lock import shipper_lock

    for sink in settings.enabled_sinks:
        holder = shipper_lock(settings.trace_dir, sink.name).holder()
        if holder is not None:
            raise BackfillError(
                f"process {holder} delivers to {sink.name} already, and keeps to no limit: stop it for the time, or "
                "leave --max-rps out"
            )


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no rate: write a number above 0, such as 5 or 0.5")
    return rate


def _print_survey(root: Path, found: Survey) -> None:
    from tracebridge.journal.survey import shown

    say(f"{found.sessions:,} sessions in {shown(root)}")
    print(
        f"  events    {found.events:,} in {found.runs:,} runs and {found.turns:,} turns, {found.bytes:,} bytes"
        + (f"; {found.old_events:,} without ids, as the original wrote them" if found.old_events else "")
    )
    if len(found.folders) > 1:
        _print_some("folders", found.folders, len(found.folders))
    if found.left_out:
        print(f"  left out  {found.left_out:,} sessions, which began at another time")
    if found.blank_lines:
        print(f"  blank     {found.blank_lines:,} lines")
    for event_type, count in sorted(found.unknown_types.items())[:_MOST_SHOWN]:
        print(f"  unknown   {count:,} events of type {event_type!r}, delivered as they are")
    if found.broken_lines:
        print(f"  broken    {found.broken_lines:,} lines; what is whole of them is delivered, and all stay as they are")
        places = [f"{line.file}, line {line.line}: {line.problem}" for line in found.broken]
        _print_some("", places, found.broken_lines)
    if found.unread:
        _print_some("not read", [f"{one.path}: {one.reason}" for one in found.unread], len(found.unread))


def _print_some(label: str, lines: list[str], count: int) -> None:
    for number, line in enumerate(lines[:_MOST_SHOWN]):
        say(f"  {'' if number else label:<9} {line}")
    if count > _MOST_SHOWN:
        print(f"            … and {count - _MOST_SHOWN:,} more: see --json")


def _print_rehearsed(one: Rehearsed, max_rps: float | None) -> None:
    if not one.requests:
        print(f"{one.sink}: nothing would be sent to {one.endpoint}")
        return
    print(
        f"{one.sink}: {one.spans:,} spans of {one.events:,} events in {one.traces:,} traces would be sent to "
        f"{one.endpoint}"
    )
    took = f", {as_age(one.requests / max_rps)} at {max_rps:g} a second" if max_rps else ""
    print(f"  {one.requests:,} requests{took}, {one.bytes:,} bytes before compression")
    if one.units is not None:
        print(f"  {one.units:,} billable units")
    if one.cut:
        print(f"  {one.cut:,} spans are too large, or hold too large a value, and would be cut")
    if one.dead:
        print(f"  {one.dead:,} spans cannot be encoded and would become dead letters")

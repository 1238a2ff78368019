"""`tracebridge backfill DIR`: deliver a folder of old traces."""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec

from tracebridge.cli.command import Commands, add_command, chosen_sinks, print_json, settings_of
from tracebridge.cli.delivery import add_options, deliver_all, exit_code_of, print_delivered
from tracebridge.errors import TracebridgeError

_DESCRIPTION = """\
Delivers a folder of traces, old format or new, to every sink that is switched on. DIR holds `session-<id>` folders
with an `events.jsonl` each; nothing in it is changed.

It may be run again at any time: what a sink has got already is not sent again. The folder is remembered, so that
`validate` compares it too.
"""


class BackfillError(TracebridgeError):
    """The folder cannot be backfilled."""


def add_to(commands: Commands) -> None:
    """Describe the command."""
    parser = add_command(commands, "backfill", run, "deliver a folder of old traces", _DESCRIPTION)
    parser.add_argument("dir", type=Path, metavar="DIR", help="a folder of `session-<id>` folders")
    add_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Deliver the folder."""
    from tracebridge.delivery.state import State
    from tracebridge.journal import layout
    from tracebridge.journal.file_system import check_file_system

    settings = settings_of(arguments)
    are_all_usable = bool(arguments.sink) or not settings.defective_sinks
    settings = msgspec.structs.replace(settings, sinks=chosen_sinks(settings, arguments.sink))
    check_file_system(settings.trace_dir)
    sessions = _count_sessions(arguments.dir)
    state = State(layout.state_file(settings.trace_dir))
    state.folder(arguments.dir)
    state.close()
    delivered = deliver_all(settings, arguments.patience)
    if arguments.json:
        print_json({"sessions": sessions, "sinks": delivered})
    else:
        print(f"{sessions:,} sessions in {arguments.dir}")
        print_delivered(delivered)
    return exit_code_of(delivered) if are_all_usable else 1


def _count_sessions(folder: Path) -> int:
    from tracebridge.journal import layout

    if not folder.is_dir():
        raise BackfillError(f"{folder}: there is no such folder")
    sessions = sum(1 for _ in layout.session_folders(folder))
    if sessions == 0:
        hint = ""
        if layout.events_file(folder).is_file():
            hint = f"; this is the folder of one session: name the folder above it, {folder.resolve().parent}"
        raise BackfillError(f"{folder}: holds no `session-<id>` folder with an {layout.EVENTS}{hint}")
    return sessions

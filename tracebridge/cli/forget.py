"""`tracebridge forget`: give up what a sink that is switched off is still owed, or a folder that was backfilled."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tracebridge.cli.command import Commands, add_command, say, settings_of
from tracebridge.errors import TracebridgeError

if TYPE_CHECKING:
    from tracebridge.config import Settings
    from tracebridge.delivery.state import State

_DESCRIPTION = """\
Gives up what a sink that is switched off has not got: its cursors, its requests in flight and its dead letters. Until
then all of it is kept, and no session that the sink still needs is deleted. The journal is not touched, and nothing is
deleted at the backend. If the sink is switched on again, it is delivered to from the beginning of what is there.

With --folder, gives up a folder that was backfilled: it is not read any more, neither to deliver what of it was not
sent nor to validate. If it is backfilled again, what a backend that can be read back holds of it is not sent again.
"""


class ForgetError(TracebridgeError):
    """The sink, or the folder, cannot be forgotten."""


def add_to(commands: Commands) -> None:
    """Describe the command."""
    parser = add_command(commands, "forget", run, "give up what a switched-off sink is owed", _DESCRIPTION)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("sink", metavar="SINK", nargs="?", help="its name in the configuration")
    what.add_argument("--folder", type=Path, metavar="DIR", help="instead, a folder that was backfilled")
    parser.add_argument("--endpoint", metavar="URL", help="only this one, where the sink has had several")


def run(arguments: argparse.Namespace) -> int:
    """Forget the sink's backends that are not delivered to any more, or the folder."""
    from tracebridge.delivery.state import State
    from tracebridge.journal import layout

    settings = settings_of(arguments)
    state = State(layout.state_file(settings.trace_dir))
    try:
        if arguments.folder is not None:
            _forget_folder(state, settings, arguments.folder)
        else:
            _forget_sink(state, settings, arguments.sink, arguments.endpoint)
    finally:
        state.close()
    return 0


def _forget_sink(state: State, settings: Settings, sink: str, endpoint: str | None) -> None:
    from tracebridge.delivery.switched_off import switched_off

    targets = [
        target
        for target in switched_off(state, settings)
        if target.sink == sink and endpoint in (None, target.endpoint)
    ]
    if not targets:
        enabled = settings.sink(sink)
        hint = "it is switched on" if enabled is not None and enabled.enabled else "nothing was delivered to it"
        raise ForgetError(f"{sink}: no backend that is switched off has this name; {hint}")
    for target in targets:
        state.forget_target(target.id)
        say(f"{target.sink} -> {target.endpoint}: forgotten")


def _forget_folder(state: State, settings: Settings, folder: Path) -> None:
    path = folder.resolve()
    trace_dir = settings.trace_dir.resolve()
    if path == trace_dir:
        raise ForgetError(f"{path}: is the trace folder itself")
    found = [number for number, known in state.folders().items() if known == path]
    if not found:
        below = [
            str(known) for known in state.folders().values() if path in known.parents and known.resolve() != trace_dir
        ]
        hint = f"; those below it are remembered by themselves, name one: {', '.join(below)}" if below else ""
        raise ForgetError(f"{path}: was not backfilled{hint}")
    for number in found:
        state.forget_folder(number)
    say(f"{path}: forgotten")

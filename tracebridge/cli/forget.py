"""`tracebridge forget SINK`: give up what a sink that is switched off is still owed."""

from __future__ import annotations

import argparse

from tracebridge.cli.command import Commands, add_command, settings_of
from tracebridge.errors import TracebridgeError

_DESCRIPTION = """\
Gives up what a sink that is switched off has not got: its cursors, its requests in flight and its dead letters. Until
then all of it is kept, and no session that the sink still needs is deleted. The journal is not touched, and nothing is
deleted at the backend. If the sink is switched on again, it is delivered to from the beginning of what is there.
"""


class ForgetError(TracebridgeError):
    """The sink cannot be forgotten."""


def add_to(commands: Commands) -> None:
    """Describe the command."""
    parser = add_command(commands, "forget", run, "give up what a switched-off sink is owed", _DESCRIPTION)
    parser.add_argument("sink", metavar="SINK", help="its name in the configuration")
    parser.add_argument("--endpoint", metavar="URL", help="only this one, where the sink has had several")


def run(arguments: argparse.Namespace) -> int:
    """Forget the sink's backends that are not delivered to any more."""
    from tracebridge.delivery.state import State
    from tracebridge.delivery.switched_off import switched_off
    from tracebridge.journal import layout

    settings = settings_of(arguments)
    state = State(layout.state_file(settings.trace_dir))
    try:
        targets = [
            target
            for target in switched_off(state, settings)
            if target.sink == arguments.sink and arguments.endpoint in (None, target.endpoint)
        ]
        if not targets:
            enabled = settings.sink(arguments.sink)
            hint = "it is switched on" if enabled is not None and enabled.enabled else "nothing was delivered to it"
            raise ForgetError(f"{arguments.sink}: no backend that is switched off has this name; {hint}")
        for target in targets:
            state.forget_target(target.id)
            print(f"{target.sink} -> {target.endpoint}: forgotten")
    finally:
        state.close()
    return 0

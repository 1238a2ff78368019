"""`tracebridge validations`: every validation so far, and what it came to."""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from tracebridge.cli.command import Commands, add_command, print_json, say, settings_of
from tracebridge.cli.times import as_text, whole_number
from tracebridge.errors import ConfigurationError

if TYPE_CHECKING:
    from tracebridge.config import Settings
    from tracebridge.delivery.state import State

_DESCRIPTION = """\
Lists the validations of each sink, newest first: when, what they were asked to compare, and what they came to. Those of
`tracebridge ship --follow --validate-every` are among them.

Then it tells how many sessions are known to be clean, and names those in which something was found.
"""


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """One validation."""

    id: int
    sink: str
    endpoint: str
    began: str
    ended: str
    """Empty if it never ended: it was stopped, or the backend could not be read."""
    scope: dict[str, Any]
    summary: dict[str, Any]


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What the latest comparison of each session says of one sink."""

    sink: str
    endpoint: str
    clean: int
    defective: list[str]
    """The names of the folders of sessions in which something was found."""


def add_to(commands: Commands) -> None:
    """Describe the command."""
    parser = add_command(commands, "validations", run, "every validation so far", _DESCRIPTION)
    parser.add_argument("--sink", metavar="NAME", help="only of this sink")
    parser.add_argument(
        "--last",
        type=partial(whole_number, least=1),
        metavar="N",
        default=20,
        help="so many of each sink (default: 20)",
    )
    parser.add_argument("--json", action="store_true", help="print them as JSON")


def run(arguments: argparse.Namespace) -> int:
    """List."""
    from tracebridge.delivery.state import State
    from tracebridge.journal import layout

    settings = settings_of(arguments)
    state = State(layout.state_file(settings.trace_dir))
    listed: list[Listed] = []
    known: list[Known] = []
    try:
        _check_name(arguments.sink, settings, state)
        for target in state.targets():
            if arguments.sink in (None, target.sink):
                compared = state.evidence.compared(target.id)
                defective = [one.session for one in compared if one.defects]
                known.append(
                    Known(
                        sink=target.sink,
                        endpoint=target.endpoint,
                        clean=len(compared) - len(defective),
                        defective=defective,
                    )
                )
                listed += [
                    Listed(
                        id=one.id,
                        sink=target.sink,
                        endpoint=target.endpoint,
                        began=as_text(one.began_ns),
                        ended=as_text(one.ended_ns),
                        scope=_object(one.scope),
                        summary=_object(one.summary),
                    )
                    for one in state.evidence.validations(target.id)[: arguments.last]
                ]
    finally:
        state.close()
    if arguments.json:
        print_json({"validations": listed, "sinks": known})
    else:
        _print(listed, known)
    return 0


def _check_name(name: str | None, settings: Settings, state: State) -> None:
    """A name with a typing error must not look like a sink that was never validated."""
    known = dict.fromkeys((*(sink.name for sink in settings.sinks), *(target.sink for target in state.targets())))
    if name is not None and name not in known:
        raise ConfigurationError(
            f"{settings.source}: there is no sink called {name!r}, and there was none (known: "
            f"{', '.join(known) or 'none'})"
        )


def _print(listed: list[Listed], known: list[Known]) -> None:
    for one in listed:
        scope = ", ".join(f"{name} {value}" for name, value in one.scope.items()) or "everything"
        say(f"{one.id}  {one.began}  {one.sink}  {_came_to(one)} ({scope})")
    if not listed:
        print("nothing was validated yet")
    for sink in known:
        say(f"{sink.sink} -> {sink.endpoint}: {sink.clean:,} sessions were compared and are clean")
        for name in sink.defective:
            say(f"  findings  {name}: see `tracebridge validate --sink {sink.sink}`")


def _came_to(one: Listed) -> str:
    if not one.ended:
        return "never ended"
    words = {0: "clean", 1: "FINDINGS", 2: "not everything compared"}.get(one.summary.get("exit_code", -1), "ended")
    return f"{words}, {one.summary.get('sessions', 0):,} sessions"


def _object(text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text or "{}", type=dict[str, Any])
    except msgspec.DecodeError:
        return {}

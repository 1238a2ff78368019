"""`tracebridge dead list|show|retry|discard`: the spans that a backend refused for good, and what becomes of them."""

from __future__ import annotations

import argparse
import base64
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from tracebridge.cli.command import Commands, add_command, chosen_sinks, print_json, say, settings_of
from tracebridge.cli.times import as_text
from tracebridge.errors import TracebridgeError

if TYPE_CHECKING:
    from tracebridge.config import Settings
    from tracebridge.delivery.records import DeadLetter
    from tracebridge.delivery.state import State

_DESCRIPTION = """\
Dead letters are spans that a backend refused for good, or could not take whatever was tried. Nothing is lost: they stay
until they are sent again or given up, and so do the journals that they were made of.

  tracebridge dead list                          which spans, and why
  tracebridge dead show 17                       all that is known of one
  tracebridge dead retry --reason "HTTP 400"     send those again whose reason says so
  tracebridge dead discard 17 18                 give these up for good

`retry` marks them; the shipper that runs sends them at once, else the next `tracebridge ship` does. They are made anew
from the journal, so that a newer tracebridge may send them in another form.
"""


class DeadLetterError(TracebridgeError):
    """No dead letter is meant."""


class _Found(NamedTuple):
    """A dead letter, and the target it belongs to."""

    target: int
    letter: DeadLetter


class _Listed(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter, as it is listed."""

    id: int
    sink: str
    reason: str
    died: str
    session_id: str
    trace_id: str
    span_id: str
    events: int
    is_retried: bool


def add_to(commands: Commands) -> None:
    """Describe the command and its subcommands."""
    parser = add_command(commands, "dead", _help, "look at refused spans, retry or discard them", _DESCRIPTION)
    parser.set_defaults(parser=parser)
    subcommands = parser.add_subparsers(metavar="COMMAND")
    for name, run, summary in (
        ("list", _list, "which spans were refused, and why"),
        ("show", _show, "all that is known of some"),
        ("retry", _retry, "send them again"),
        ("discard", _discard, "give them up for good"),
    ):
        add = subcommands.add_parser(name, help=summary, description=summary)
        add.set_defaults(run=run)
        add.add_argument("numbers", type=int, nargs="*", metavar="ID", help="only these; all if none is given")
        add.add_argument("--sink", action="append", metavar="NAME", help="only of this sink; may be given again")
        add.add_argument("--reason", default="", metavar="TEXT", help="only those whose reason holds this text")
        if run in (_retry, _discard):
            add.add_argument("--all", action="store_true", help="really all of them")
        else:
            add.add_argument("--json", action="store_true", help="print it as JSON")


def _help(arguments: argparse.Namespace) -> int:
    arguments.parser.print_help()
    return 2


def _list(arguments: argparse.Namespace) -> int:
    with _letters(arguments) as (_, found):
        listed = [_listed(letter) for _, letter in found]
    if arguments.json:
        print_json(listed)
        return 0
    for one in listed:
        say(f"{one.id:>6}  {one.died}  {one.sink}  session {one.session_id}, span {one.span_id}")
        say(f"        {one.reason}" + (" (to be sent again)" if one.is_retried else ""))
    for (sink, reason), count in Counter((one.sink, one.reason) for one in listed).most_common():
        say(f"{sink}: {count:,} refused: {reason}")
    if not listed:
        print("no dead letters")
    return 0


def _show(arguments: argparse.Namespace) -> int:
    from tracebridge.delivery.lookup import find_span
    from tracebridge.report.visible import visible

    with _letters(arguments) as (state, found):
        sinks = {sink.name: sink for sink in settings_of(arguments).enabled_sinks}
        shown = [
            {
                **msgspec.to_builtins(_listed(letter)),
                "span": find_span(state.folders().values(), letter.ref, sinks[letter.sink].policy),
                "encoded": base64.b64encode(state.dead.part(letter.id)).decode(),
            }
            for _, letter in found
        ]
    if arguments.json:
        print_json(shown)
        return 0
    for one in shown:
        span, encoded = one.pop("span"), one.pop("encoded")
        for name, value in one.items():
            say(f"{name}: {value}")
        print(f"encoded: {len(base64.b64decode(encoded)):,} bytes (--json tells them)")
        text = msgspec.json.format(msgspec.json.encode(span), indent=2).decode() if span else "its journal is gone"
        print(visible(f"span: {text}\n"))
    return 0


def _retry(arguments: argparse.Namespace) -> int:
    with _chosen(arguments) as (state, found):
        state.dead.retry([letter for _, letter in found])
        print(f"{len(found):,} dead letters are to be sent again: by the shipper that runs, or by `tracebridge ship`")
    return 0


def _discard(arguments: argparse.Namespace) -> int:
    with _chosen(arguments) as (state, found):
        discarded = sum(
            state.dead.discard(target, [letter for owner, letter in found if owner == target])
            for target in {target for target, _ in found}
        )
        print(f"{discarded:,} dead letters are given up; their events stay in the journal")
    return 0


@contextmanager
def _letters(arguments: argparse.Namespace) -> Iterator[tuple[State, list[_Found]]]:
    """The state, and the dead letters that the command line names.

    Raises:
        DeadLetterError: a number names none of them.
    """
    from tracebridge.delivery.state import State
    from tracebridge.journal import layout

    settings = settings_of(arguments)
    state = State(layout.state_file(settings.trace_dir))
    try:
        found = list(_found(state, settings, arguments))
        unknown = set(arguments.numbers) - {letter.id for _, letter in found}
        if unknown:
            named = ", ".join(map(str, sorted(unknown)))
            raise DeadLetterError(
                f"no dead letter {named} of the sinks and reasons asked for: see `tracebridge dead list`"
            )
        yield state, found
    finally:
        state.close()


@contextmanager
def _chosen(arguments: argparse.Namespace) -> Iterator[tuple[State, list[_Found]]]:
    """The same for commands that change something: all of them are only meant if that is said."""
    if not (arguments.numbers or arguments.reason or arguments.sink or arguments.all):
        raise DeadLetterError("say which: by number, by --reason, by --sink, or --all")
    with _letters(arguments) as found:
        yield found


def _found(state: State, settings: Settings, arguments: argparse.Namespace) -> Iterator[_Found]:
    for sink in chosen_sinks(settings, arguments.sink):
        target = state.target(sink.name, sink.endpoint)
        for letter in state.dead.of(target, arguments.reason, arguments.numbers):
            yield _Found(target, letter)


def _listed(letter: DeadLetter) -> _Listed:
    return _Listed(
        id=letter.id,
        sink=letter.sink,
        reason=letter.reason,
        died=as_text(letter.died_ns),
        session_id=letter.ref.session_id,
        trace_id=letter.ref.trace_id,
        span_id=letter.ref.span_id,
        events=letter.ref.events,
        is_retried=letter.is_retried,
    )

"""`tracebridge open`: where a session's traces are looked at."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, Final

import msgspec

from tracebridge.cli.command import Commands, add_command, chosen_sinks, print_json, say, settings_of
from tracebridge.errors import TracebridgeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from tracebridge.config import Settings, SinkSettings
    from tracebridge.span import Span

_DESCRIPTION = """\
Prints, for each trace of a session, the address of its page at each backend that is switched on. A trace may also be
named itself, by its id. Nothing is asked over the network: whether it arrived is what `tracebridge validate` tells.
"""

_TRACE_ID: Final = re.compile("[0-9a-f]{32}")
_MOST_CHARACTERS: Final = 60


class NothingToOpenError(TracebridgeError):
    """There is no such session and no such trace."""


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """A trace, and where it is looked at."""

    trace_id: str
    what: str
    """What it stands for: the run of a session, or a turn and what the user said."""
    pages: dict[str, str]
    """By sink, the address of its page; empty where the sink knows of none."""


def add_to(commands: Commands) -> None:
    """Describe the command."""
    parser = add_command(commands, "open", run, "print the pages of a session's traces", _DESCRIPTION)
    parser.add_argument("what", metavar="SESSION|TRACE", help="a session's id, or a trace's: 32 hex digits")
    parser.add_argument("--sink", action="append", metavar="NAME", help="only this sink; may be given again")
    parser.add_argument("--json", action="store_true", help="print them as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print the pages."""
    settings = settings_of(arguments)
    sinks = chosen_sinks(settings, arguments.sink)
    found = [
        Trace(trace_id=trace_id, what=what, pages={sink.name: sink.trace_url(trace_id) for sink in sinks})
        for trace_id, what in _traces(settings, arguments.what).items()
    ]
    if arguments.json:
        print_json(found)
    else:
        for trace in found:
            _print(trace, sinks)
    return 0


def _traces(settings: Settings, what: str) -> dict[str, str]:
    """By trace id, what it stands for, in the order of the journal."""
    spans = list(_spans(_folders(settings), what))
    if not spans and _TRACE_ID.fullmatch(what):
        return {what: "trace"}
    if not spans:
        raise NothingToOpenError(
            f"no session {what!r} is recorded in {settings.trace_dir} or in a backfilled folder; "
            "give the id of a session, or of a trace: 32 hex digits"
        )
    traces: dict[str, str] = {}
    for span in sorted(spans, key=_place):
        if span.kind == "turn" and not traces.get(span.trace_id, "").startswith("turn"):
            traces[span.trace_id] = f"turn {span.turn}{_said(span)}"
        else:
            traces.setdefault(span.trace_id, f"run {span.run_id}" if span.kind == "session" else span.name)
    return traces


def _folders(settings: Settings) -> list[Path]:
    """The trace folder, and every folder that was backfilled."""
    from tracebridge.delivery.state import State
    from tracebridge.journal import layout

    if not layout.state_file(settings.trace_dir).exists():
        return [settings.trace_dir]
    state = State(layout.state_file(settings.trace_dir))
    try:
        return list(dict.fromkeys([settings.trace_dir, *state.folders().values()]))
    finally:
        state.close()


def _spans(folders: Iterable[Path], session_id: str) -> Iterator[Span]:
    from tracebridge.assembler.deadlines import LATEST_NS
    from tracebridge.journal import layout
    from tracebridge.session_stream import SessionStream

    for folder in folders:
        events = layout.events_file(layout.session_folder(folder, session_id))
        if not events.is_file():
            continue
        stream = SessionStream(events, lambda _, data: data)
        for step in stream.steps():
            yield from step.spans
        # what is still open has a page too, once its parts arrive
        yield from stream.expire(LATEST_NS)


def _place(span: Span) -> tuple[int, int]:
    return span.start_ns, min(edge.ordinal for edge in (span.opened, span.closed) if edge is not None)


def _said(turn: Span) -> str:
    if not isinstance(turn.input, str) or not turn.input.strip():
        return ""
    text = " ".join(turn.input.split())
    return f": {text if len(text) <= _MOST_CHARACTERS else text[:_MOST_CHARACTERS] + '…'}"


def _print(trace: Trace, sinks: Iterable[SinkSettings]) -> None:
    # a part of it was said by a user
    say(f"{trace.trace_id}  {trace.what}")
    for sink in sinks:
        print(f"  {sink.name}: {trace.pages[sink.name] or _unknown(sink)}")


def _unknown(sink: SinkSettings) -> str:
    return f"no page is known; for an OpenTelemetry sink, name it with `trace_page` ({sink.endpoint})"

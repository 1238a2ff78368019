"""`tracebridge restore`: the way back from a backend to JSONL."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tracebridge.cli.command import Commands, add_command, print_json, say, settings_of
from tracebridge.cli.progress import progress
from tracebridge.cli.times import time_given
from tracebridge.errors import ConfigurationError, StateError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tracebridge.config import Settings, SinkSettings
    from tracebridge.policy import Policy
    from tracebridge.restore import Restoration

_DESCRIPTION = """\
Rebuilds a folder of `session-<id>` folders, with an `events.jsonl` and a `metadata.json` each, from what a sink's
backend shows. The sink need not be switched on.

Of what tracebridge has sent, the events are those of the original, less what the sink's policy left out: that is
listed, by name and count. Of what somebody else has sent, events are made that tell as much as they can.

Nothing is overwritten. A session that is in DIR already is an error that names it, before anything is written; with
--skip-existing it is left as it is, so that an interrupted run can be taken up. A session appears whole or not at all.

Exit codes: 0 everything is as it was; 1 something is not, or may not have been found: it says what; 2 it could not be
done, or not to the end.
"""

_MOST_SHOWN: Final = 20


def add_to(commands: Commands) -> None:
    """Describe the command."""
    parser = add_command(commands, "restore", run, "rebuild the JSONL folder from a backend", _DESCRIPTION)
    parser.add_argument("--from", dest="sink", required=True, metavar="SINK", help="the sink whose backend is read")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="an empty folder, or one that holds other sessions"
    )
    parser.add_argument(
        "--session",
        action="append",
        default=[],
        metavar="ID",
        help="only this session, or the trace of this id whose spans name no session; may be given again",
    )
    parser.add_argument(
        "--since",
        type=time_given,
        metavar="TIME",
        help="only sessions with a span that began then or later, each whole: 2026-02, 2026-02-06 or "
        "2026-02-06T22:10:00Z, in UTC unless it names a zone",
    )
    parser.add_argument(
        "--until", type=time_given, metavar="TIME", help="only sessions with a span that began before then"
    )
    parser.add_argument(
        "--skip-existing", action="store_true", help="leave sessions as they are that are there already"
    )
    parser.add_argument("--json", action="store_true", help="print the account as JSON")
    parser.set_defaults(usage_error=parser.error)


def run(arguments: argparse.Namespace) -> int:
    """Restore."""
    from tracebridge import jsonvalue
    from tracebridge.restore import Restorer, Selection

    if arguments.session and (arguments.since is not None or arguments.until is not None):
        arguments.usage_error("--session names sessions whatever their time: leave --since and --until out")
    if None not in (arguments.since, arguments.until) and arguments.since >= arguments.until:
        arguments.usage_error("--until must be later than --since")
    settings = settings_of(arguments)
    sink = _sink_called(settings, arguments.sink)
    # as a session's id is recorded, and as every backend can be asked for it
    session_ids = tuple(map(jsonvalue.text, arguments.session))
    selection = Selection(session_ids=session_ids, start_ns=arguments.since or 0, end_ns=arguments.until)
    expect = _expecting(settings) if arguments.out.resolve() == settings.trace_dir.resolve() else None
    restorer = Restorer(sink, arguments.out, settings.capture, policies_of(settings, sink), expect)
    try:
        with progress(f"restoring from {sink.name}", "sessions") as bar:
            restored = restorer.restore(selection, skip_existing=arguments.skip_existing, progress=bar.update)
    finally:
        restorer.close()
    if arguments.json:
        print_json(_for_scripts(restored))
    else:
        print_restoration(restored)
    return restored.exit_code


def print_restoration(restored: Restoration) -> None:
    """Print what restoring came to for people."""
    events = sum(session.events for session in restored.sessions)
    spans = sum(sum(session.spans.values()) for session in restored.sessions)
    say(f"{restored.out}: {len(restored.sessions):,} sessions, {events:,} events of {spans:,} spans")
    say(f"  from      {restored.sink} ({restored.endpoint})")
    others = [session for session in restored.sessions if session.origin == "other"]
    if others:
        print(
            f"  others'   {len(others):,} of the sessions were sent by somebody else, and tell what can be told of them"
        )
    if restored.skipped:
        print(f"  there     {len(restored.skipped):,} sessions were there already and were left as they are")
    if restored.probes:
        print(f"  probes    {restored.probes:,} of `tracebridge doctor`, left out")
    repeats = sum(session.repeats for session in restored.sessions)
    if repeats:
        print(f"  repeats   {repeats:,} spans are stored more than once, and were taken once")
    foreign = sum(session.others for session in restored.sessions)
    if foreign:
        print(f"  beside    {foreign:,} spans of other senders in sessions of tracebridge's, which are no part of them")
    if restored.sampled < 1:
        print(f"  sampling  the sink is sent {restored.sampled:.2%} of the sessions; the others are not there")
    if restored.unlisted:
        say(f"  unlisted  {restored.unlisted} What of it no search finds is not here.")
    for name, words in restored.declared.items():
        concerned = sum(session.losses.get(name, 0) for session in restored.sessions)
        more = f" {concerned:,} spans show less for it than the events, which are restored whole." if concerned else ""
        say(f"  loss      {name}: {words}{more}")
    for name, count in sorted(restored.totals.items()):
        say(f"  {name}: {count:,} {restored.words(name)}")
    for session_id in restored.not_found[:_MOST_SHOWN]:
        say(f"  - {session_id}: not found")
    short = [session for session in restored.sessions if session.shortfalls]
    for session in short[:_MOST_SHOWN]:
        gaps = ", ".join(f"{gap.name} {gap.count:,}" for gap in session.shortfalls)
        say(f"  - {session.session_id}: {gaps}")
    if len(short) > _MOST_SHOWN:
        print(f"  … and {len(short) - _MOST_SHOWN:,} more sessions: --json tells all")
    if restored.trouble:
        say(f"tracebridge: {restored.left:,} sessions were not reached: {restored.trouble}", sys.stderr)


def _for_scripts(restored: Restoration) -> dict[str, object]:
    return {
        "exit_code": restored.exit_code,
        "totals": restored.totals,
        **{name: getattr(restored, name) for name in restored.__struct_fields__},
    }


def _sink_called(settings: Settings, name: str) -> SinkSettings:
    sink = settings.sink(name)
    if sink is None:
        known = ", ".join(sink.name for sink in settings.sinks) or "none"
        raise ConfigurationError(
            f"{settings.source}: there is no sink called {name!r} (known: {known}); add it under `agent_trace.sinks`"
        )
    return sink


def policies_of(settings: Settings, sink: SinkSettings) -> Callable[[str], Policy | None]:
    """What fingerprints stand for: the sink's rules now, and those that the delivery state remembers."""
    from tracebridge.delivery.rules import rules_from_text, rules_of
    from tracebridge.delivery.state import State
    from tracebridge.journal import layout

    known: dict[str, Policy | None] = {}
    if sink.sink_type is not None and sink.settings is not None:
        known[rules_of(sink.policy, sink.capabilities).fingerprint] = sink.policy

    def remembered(fingerprint: str) -> Policy | None:
        file = layout.state_file(settings.trace_dir)
        # on another machine there is none, and none is to be made
        if not file.exists():
            return None
        try:
            state = State(file)
        except StateError:
            return None
        try:
            text = state.rules(fingerprint)
        finally:
            state.close()
        return None if text is None else rules_from_text(text).policy

    def policy_of(fingerprint: str) -> Policy | None:
        if fingerprint not in known:
            known[fingerprint] = remembered(fingerprint)
        return known[fingerprint]

    return policy_of


def _expecting(settings: Settings) -> Callable[[Path, str], None]:
    """Sees to it that who ships from the trace folder takes no session that is back for a new one."""
    from tracebridge.delivery.returned import expect_held
    from tracebridge.delivery.state import State
    from tracebridge.journal import layout

    def expect(made: Path, name: str) -> None:
        state = State(layout.state_file(settings.trace_dir))
        try:
            expect_held(settings, state, name, layout.events_file(made))
        finally:
            state.close()

    return expect

"""`tracebridge validate`: does a backend hold what the journal says it should?"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import msgspec

from tracebridge.cli import sides
from tracebridge.cli.command import Commands, add_command, chosen_sinks, print_json, settings_of
from tracebridge.cli.progress import progress

if TYPE_CHECKING:
    from tracebridge.validation import Finding, Verdict

_DESCRIPTION = """\
Reads a backend back through its public API and compares it with the journal, span by span and field by field.

Exit codes: 0 only if every owed, closed session was compared and nothing was found; 1 something was found;
2 not everything could be compared (nothing is owed, the backend is away, a session is still open): it says what.
"""

_MOST_SHOWN = 20
_MOST_CHARACTERS = 160


def add_to(commands: Commands) -> None:
    """Describe the command."""
    parser = add_command(commands, "validate", run, "compare a backend with the journal, span by span", _DESCRIPTION)
    parser.add_argument("--sink", action="append", metavar="NAME", help="only this sink; may be given again")
    parser.add_argument("--session", metavar="ID", help="only this session")
    parser.add_argument("--json", action="store_true", help="print the verdicts as JSON")
    sides.add_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Validate."""
    from tracebridge.validation import Validator

    if sides.is_asked_for(arguments):
        return sides.run(arguments)
    settings = settings_of(arguments)
    verdicts = []
    for sink in chosen_sinks(settings, arguments.sink):
        validator = Validator(sink, settings.trace_dir)
        try:
            with progress(f"validating {sink.name}", "sessions") as bar:
                verdicts.append(validator.validate(arguments.session, bar.update))
        finally:
            validator.close()
    if arguments.json:
        print_json([_for_scripts(verdict) for verdict in verdicts])
    else:
        for verdict in verdicts:
            print_verdict(verdict)
    codes = {verdict.exit_code for verdict in verdicts}
    return 1 if 1 in codes else max(codes)


def print_verdict(verdict: Verdict) -> None:
    """Print a verdict for people: what it is first, then what it rests on."""
    words = {0: "CLEAN", 1: "FINDINGS", 2: "NOT EVERYTHING COULD BE COMPARED"}
    print(f"{verdict.sink}: {words[verdict.exit_code]} ({verdict.endpoint})")
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(verdict.spans.items()))
    print(f"  compared  {verdict.sessions:,} sessions, {verdict.expected:,} spans" + (f" ({kinds})" if kinds else ""))
    print(f"  equal     {verdict.equal:,}")
    for name, count in verdict.losses.items():
        print(f"            {count:,} of them up to the declared loss {name}")
    for kind, count in sorted(verdict.counts.items()):
        print(f"  {kind:<9} {count:,}")
    for finding in verdict.findings[:_MOST_SHOWN]:
        _print_finding(finding)
    if len(verdict.findings) > _MOST_SHOWN:
        print(f"  … and {len(verdict.findings) - _MOST_SHOWN:,} more: --json tells all")
    for uncompared in verdict.uncompared[:_MOST_SHOWN]:
        session = f"session {uncompared.session_id}: " if uncompared.session_id else ""
        print(f"  not compared: {session}{uncompared.reason}")
    if len(verdict.uncompared) > _MOST_SHOWN:
        print(f"  … and {len(verdict.uncompared) - _MOST_SHOWN:,} more not compared: --json tells all")


def _print_finding(finding: Finding) -> None:
    print(
        f"  - {finding.kind}: {finding.span_kind} {finding.name!r} of session {finding.session_id}"
        f" (trace {finding.trace_id}, span {finding.span_id})"
    )
    for difference in finding.differences:
        print(f"      {difference.field}")
        print(f"        journal: {_shown(difference.expected)}")
        print(f"        backend: {_shown(difference.observed)}")


def _shown(value: object) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}… ({len(text):,} characters)"


def _for_scripts(verdict: Verdict) -> dict[str, object]:
    return {
        "exit_code": verdict.exit_code,
        "counts": verdict.counts,
        **{name: getattr(verdict, name) for name in verdict.__struct_fields__},
    }

"""`tracebridge validate`: does a backend hold what the journal says it should?"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from tracebridge.cli import sides
from tracebridge.cli.command import Commands, add_command, chosen_sinks, print_json, settings_of
from tracebridge.cli.progress import progress
from tracebridge.cli.reports import add_report_arguments, check_places, write_reports
from tracebridge.cli.times import share, time_given

if TYPE_CHECKING:
    from tracebridge.validation import Verdict

_DESCRIPTION = """\
Reads a backend back through its public API and compares it with the journal, span by span and field by field.

Exit codes: 0 only if every owed, closed session was compared and nothing was found; 1 something was found;
2 not everything could be compared (nothing is owed, the backend is away, a session is still open): it says what.
"""


def add_to(commands: Commands) -> None:
    """Describe the command."""
    parser = add_command(commands, "validate", run, "compare a backend with the journal, span by span", _DESCRIPTION)
    parser.add_argument("--sink", action="append", metavar="NAME", help="only this sink; may be given again")
    parser.add_argument("--session", metavar="ID", help="only this session")
    parser.add_argument("--since", type=time_given, metavar="TIME", help="only sessions that went on after it")
    parser.add_argument("--until", type=time_given, metavar="TIME", help="only sessions that began before it")
    parser.add_argument("--environment", metavar="NAME", help="only sessions of this environment")
    parser.add_argument(
        "--sample", type=share, default=1.0, metavar="5%", help="only a share of the sessions, the same every time"
    )
    parser.add_argument(
        "--since-last",
        action="store_true",
        help="leave out sessions that were found clean before and have not changed; takes up an interrupted run",
    )
    parser.add_argument(
        "--resend", action="store_true", help="have what is missing, though the backend has taken it, sent again"
    )
    parser.add_argument("--json", action="store_true", help="print the verdicts as JSON")
    add_report_arguments(parser)
    sides.add_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Validate."""
    from tracebridge.validation import Scope, Validator, without_reader

    if sides.is_asked_for(arguments):
        return sides.run(arguments)
    settings = settings_of(arguments)
    scope = Scope(
        session_id=arguments.session,
        since_ns=arguments.since,
        until_ns=arguments.until,
        environment=arguments.environment,
        sample=arguments.sample,
        since_last=arguments.since_last,
    )
    check_places(arguments)
    # what nobody named is asked of every sink that is switched on
    sinks = chosen_sinks(settings, arguments.sink) + (() if arguments.sink else settings.defective_sinks)
    verdicts = []
    for sink in sinks:
        if sink.defect or not sink.capabilities.readable:
            verdicts.append(without_reader(sink, scope))
            continue
        validator = Validator(sink, settings.trace_dir)
        try:
            with progress(f"validating {sink.name}", "sessions") as bar:
                verdicts.append(validator.validate(scope, bar.update, resend=arguments.resend))
        finally:
            validator.close()
    if arguments.json:
        print_json([_for_scripts(verdict) for verdict in verdicts])
    else:
        for verdict in verdicts:
            print_verdict(verdict)
    write_reports(arguments, settings.trace_dir, list(zip(sinks, verdicts, strict=True)))
    codes = {verdict.exit_code for verdict in verdicts}
    return 1 if 1 in codes else max(codes)


def print_verdict(verdict: Verdict) -> None:
    """Print a verdict for people: what it is first, then what it rests on."""
    from tracebridge.report import terminal

    for line in terminal.lines(verdict):
        print(line)


def _for_scripts(verdict: Verdict) -> dict[str, object]:
    return {
        "exit_code": verdict.exit_code,
        **{name: getattr(verdict, name) for name in verdict.__struct_fields__},
    }

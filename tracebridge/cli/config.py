"""`tracebridge config check|show`: is the configuration right, and what does it come to?"""

from __future__ import annotations

import argparse
import sys

from tracebridge.cli.command import Commands, add_command, say, settings_of, source_of


def add_to(commands: Commands) -> None:
    """Describe the command."""
    parser = add_command(
        commands,
        "config",
        lambda _: 2,
        "check or show the configuration",
        "Checks or shows the effective configuration: the file, the environment and the defaults taken together.",
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    add_command(
        actions,
        "check",
        check,
        "name every mistake, with its place and what to do",
        "Reads the configuration and names every mistake in it. Exit codes: 0 it is right, though there may be "
        "warnings; 1 it is not.",
    )
    add_command(
        actions,
        "show",
        show_effective,
        "print what is in force, and where each value came from",
        "Prints the configuration that is in force, as YAML, with secrets masked.",
    )


def check(arguments: argparse.Namespace) -> int:
    """Name every mistake."""
    from tracebridge.config import examine

    settings, findings = examine(source_of(arguments))
    for finding in findings:
        say(str(finding), sys.stderr)
    if settings is None:
        return 1
    for sink in settings.defective_sinks:
        say(f"{settings.source}: agent_trace.sinks.{sink.name}: {sink.defect}", sys.stderr)
    if settings.defective_sinks:
        return 1
    for sink, before in settings.repeating_sinks:
        say(
            f"{settings.source}: agent_trace.sinks.{sink.name}: warning: it sends to the same place as the sink "
            f"{before.name} ({sink.endpoint}), where all that both are owed is stored twice; switch one of them off",
            sys.stderr,
        )
    sinks = ", ".join(sink.name for sink in settings.enabled_sinks) or "none"
    journal = "kept" if settings.keep_journal else "a spool, which is emptied once every sink has it"
    say(f"{settings.source}: right. Journal in {settings.trace_dir}, {journal}; sinks: {sinks}")
    return 0


def show_effective(arguments: argparse.Namespace) -> int:
    """Print what is in force."""
    from tracebridge.config import show

    sys.stdout.write(show(settings_of(arguments)))
    return 0

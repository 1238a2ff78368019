"""`tracebridge doctor`: does everything work that delivery needs?"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from tracebridge.cli.command import Commands, add_command, print_json, say, source_of
from tracebridge.diagnosis import Check

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tracebridge.config import Settings, SinkSettings
    from tracebridge.config.mistake import Mistake
    from tracebridge.doctor import Diagnosis, Examination

_DESCRIPTION = """\
Looks at this machine (configuration, trace folder, state, who ships, versions) and at each sink that is switched on:
can it be reached, is its TLS trusted, whose credentials are these, which version and write mode has the server, do the
clocks agree; and it sends a span and reads it back. For each failure it says what to do.

The span is a probe: its session id, its environment and its tag begin with `tracebridge-doctor`. It is no part of what
is validated or restored.

Exit codes: 0 nothing fails, though there may be warnings; 1 something fails; 2 the command line is wrong.
"""

_DEFAULT_TIMEOUT_S: Final = 30.0
_SHOWN: Final = {"ok": "ok", "warn": "WARN", "fail": "FAIL", "skip": "-"}


def add_to(commands: Commands) -> None:
    """Describe the command."""
    parser = add_command(commands, "doctor", run, "does everything work that delivery needs?", _DESCRIPTION)
    parser.add_argument("--sink", action="append", metavar="NAME", help="only this sink; may be given again")
    parser.add_argument("--no-probe", action="store_true", help="send nothing, and read nothing back")
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=_DEFAULT_TIMEOUT_S,
        metavar="SECONDS",
        help=f"the most that each sink may take, the probe included (default {_DEFAULT_TIMEOUT_S:g})",
    )
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Examine."""
    from tracebridge.doctor import Diagnosis

    diagnosis = Diagnosis(examinations=tuple(_examinations(arguments)))
    if arguments.json:
        print_json({"exit_code": diagnosis.exit_code, "examinations": diagnosis.examinations})
    else:
        print_diagnosis(diagnosis)
    return diagnosis.exit_code


def print_diagnosis(diagnosis: Diagnosis) -> None:
    """Print what was found for people: for each failure what to do."""
    for examination in diagnosis.examinations:
        say(examination.subject + (f" -> {examination.endpoint}" if examination.endpoint else ""))
        for check in examination.checks:
            say(f"  {_SHOWN[check.status]:<5} {check.name:<17} {check.found}")
            if check.remedy and check.status != "ok":
                say(f"        {'':<17} what to do: {check.remedy}")
    counts = [sum(check.status == status for e in diagnosis.examinations for check in e.checks) for status in _SHOWN]
    print(f"{counts[0]} ok, {counts[1]} warnings, {counts[2]} failures, {counts[3]} not looked at")


def _examinations(arguments: argparse.Namespace) -> Iterator[Examination]:
    from tracebridge.config import examine
    from tracebridge.doctor import Examination, examine_local, examine_sink

    settings, mistakes = examine(source_of(arguments))
    if settings is None:
        yield Examination(subject="local", checks=tuple(_mistaken(mistakes)))
        return
    sinks = _chosen(settings, arguments.sink)
    yield Examination(subject="local", checks=tuple(examine_local(settings)))
    for sink in sinks:
        yield examine_sink(sink, arguments.timeout, with_probe=not arguments.no_probe)


def _mistaken(mistakes: Iterable[Mistake]) -> Iterator[Check]:
    for mistake in mistakes:
        place = mistake.source if mistake.line is None else f"{mistake.source}, line {mistake.line}"
        path = f": {mistake.path}" if mistake.path else ""
        yield Check(
            name="configuration", status="fail", found=f"{place}{path}: {mistake.problem}", remedy=mistake.remedy
        )


def _chosen(settings: Settings, names: list[str] | None) -> list[SinkSettings]:
    """The sinks that are switched on, those with a defective plug-in among them, or those that were named."""
    from tracebridge.errors import ConfigurationError

    enabled = {sink.name: sink for sink in settings.sinks if sink.enabled}
    for name in names or ():
        if name not in enabled:
            known = ", ".join(enabled) or "none"
            raise ConfigurationError(
                f"{settings.source}: no sink called {name!r} is switched on (switched on: {known})"
            )
    return [enabled[name] for name in dict.fromkeys(names or enabled)]


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return seconds

"""`tracebridge validate --left SIDE --right SIDE`: any two sides, compared with each other."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from tracebridge.cli.command import print_json, say, settings_of
from tracebridge.cli.progress import progress
from tracebridge.cli.times import whole_number
from tracebridge.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracebridge.sides import Notes, Side, SidesVerdict
    from tracebridge.span import Span
    from tracebridge.validation import Finding

_MOST_PRINTED: Final = 20
_MOST_CHARACTERS: Final = 160
_DEFAULT_MEMORY_MB: Final = 1_024
_OF_THE_JOURNAL: Final = {
    **dict.fromkeys(("sink", "session", "since", "until", "environment", "html", "junit")),
    "sample": 1.0,
    "since_last": False,
    "resend": False,
}
"""The options of `validate` that mean nothing for two sides, and what they are if nobody gives them."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what comparing two sides takes to the options of `validate`."""
    sides = parser.add_argument_group(
        "any two sides",
        "instead of sinks with the journal: SIDE is folder:DIR, sink:NAME, langfuse-export:PATH or spans:PATH",
    )
    sides.add_argument("--left", metavar="SIDE", help="what is expected")
    sides.add_argument("--right", metavar="SIDE", help="what is compared with it")
    sides.add_argument(
        "--as",
        dest="like",
        metavar="NAME",
        help="the sink that an export or a dump came from: journals are read under its policy, and its losses hold",
    )
    sides.add_argument("--engine", choices=("duckdb", "spark"), help="what compares (default: duckdb, embedded)")
    sides.add_argument("--master", metavar="URL", help="Spark's master (default: local[*], on this machine)")
    sides.add_argument(
        "--memory-mb",
        type=_megabytes,
        metavar="MB",
        help=f"what the engine may use before it goes on to the disk (default: {_DEFAULT_MEMORY_MB})",
    )
    sides.add_argument(
        "--examples", type=whole_number, metavar="N", help="findings of each kind that are told (default: 100)"
    )
    sides.add_argument("--save-left", type=Path, metavar="FILE", help="keep what the left side gave, as a spans: side")
    sides.add_argument("--save-right", type=Path, metavar="FILE", help="keep what the right side gave")


def is_asked_for(arguments: argparse.Namespace) -> bool:
    """Whether the command line is about two sides.

    Raises:
        ConfigurationError: it is half about them.
    """
    if arguments.left and arguments.right:
        # whoever asked for a part, or for a report, must not take the whole, or the report of yesterday, for it
        if given := [option for option, usual in _OF_THE_JOURNAL.items() if getattr(arguments, option) != usual]:
            named = " and ".join(f"--{option.replace('_', '-')}" for option in given)
            raise ConfigurationError(
                f"{named} can be had of a comparison with the journal alone: leave out beside --left and --right"
            )
        return True
    options = ("left", "right", "like", "engine", "master", "memory_mb", "examples", "save_left", "save_right")
    if any(getattr(arguments, option) is not None for option in options):
        raise ConfigurationError("two sides are compared with --left SIDE and --right SIDE: name both")
    return False


def run(arguments: argparse.Namespace) -> int:
    """Compare two sides."""
    from tracebridge.sides import Settings, compare_sides
    from tracebridge.sides.address import sides_of

    if arguments.master and arguments.engine != "spark":
        raise ConfigurationError("--master is Spark's: add --engine spark")
    left, right = sides_of([arguments.left, arguments.right], settings_of(arguments), arguments.like)
    settings = Settings(
        engine=arguments.engine or "duckdb",
        master=arguments.master or "local[*]",
        memory_mb=arguments.memory_mb or _DEFAULT_MEMORY_MB,
    )
    with progress("reading", "spans") as bar:
        verdict = compare_sides(
            _saved(left, arguments.save_left),
            _saved(right, arguments.save_right),
            settings,
            shown=100 if arguments.examples is None else arguments.examples,
            progress=lambda _, spans: bar.update(spans, spans),
        )
    if arguments.json:
        print_json(_for_scripts(verdict))
    else:
        print_sides(verdict)
    return verdict.exit_code


def print_sides(verdict: SidesVerdict) -> None:
    """Print what comparing came to for people."""
    words = {0: "EQUAL", 1: "FINDINGS", 2: "NOT EVERYTHING COULD BE COMPARED"}
    say(f"{words[verdict.exit_code]}: {verdict.left} and {verdict.right}")
    say(f"  left      {verdict.expected:,} spans compared")
    say(f"  right     {verdict.observed:,} spans compared")
    say(f"  equal     {verdict.equal:,}")
    for name, count in verdict.losses.items():
        say(f"            {count:,} of them up to the declared loss {name}: {verdict.declared[name]}")
    for kind, count in verdict.counts.items():
        say(f"  {kind:<9} {count:,}")
    for field, count in verdict.fields.items():
        say(f"            {count:,} in {field}")
    printed, found = verdict.findings[:_MOST_PRINTED], sum(verdict.counts.values())
    for finding in printed:
        _print_finding(finding)
    if found > len(printed):
        say(f"  … {len(printed)} of {found:,} are shown: --json and --examples N tell more")
    for uncompared in verdict.uncompared[:_MOST_PRINTED]:
        session = f"session {uncompared.session_id}: " if uncompared.session_id else ""
        say(f"  not compared: {session}{uncompared.reason}")
    if not (verdict.expected or verdict.observed):
        say("  not compared: neither side has a span")


def _print_finding(finding: Finding) -> None:
    say(
        f"  - {finding.kind}: {finding.span_kind} {finding.name!r} of session {finding.session_id}"
        f" (trace {finding.trace_id}, span {finding.span_id})"
    )
    for difference in finding.differences:
        say(f"      {difference.field}")
        say(f"        left:  {_shown(difference.expected)}")
        say(f"        right: {_shown(difference.observed)}")


def _saved(side: Side, path: Path | None) -> Side:
    """The side, which writes what it gives to `path` while it is read."""
    from tracebridge.sides.dump import write_dump

    if path is None:
        return side

    def read(notes: Notes) -> Iterator[Span]:
        try:
            yield from write_dump(path, side.read(notes))
        except OSError as error:
            raise ConfigurationError(
                f"{path}: cannot be written: {error}; name a file that is not there yet"
            ) from error

    return msgspec.structs.replace(side, read=read)


def _shown(value: object) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}… ({len(text):,} characters)"


def _for_scripts(verdict: SidesVerdict) -> dict[str, object]:
    return {
        "exit_code": verdict.exit_code,
        **{name: getattr(verdict, name) for name in verdict.__struct_fields__},
    }


def _megabytes(text: str) -> int:
    megabytes = whole_number(text)
    if megabytes < 64:
        raise argparse.ArgumentTypeError(f"{text}: no engine works with less than 64 MB")
    return megabytes

"""`Commands`: the command line as a user has it, each command run in a process of its own."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import msgspec

from tracebridge.errors import TracebridgeError

T = TypeVar("T")


class CommandError(TracebridgeError):
    """A command gave something else than it should: names the command and what it said."""


class Ran(msgspec.Struct, frozen=True):
    """What became of a command."""

    line: str
    """As a user would type it."""
    exit_code: int
    output: str
    """What it printed, errors included."""


class SinkFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What `tracebridge status --json` tells of a sink, as far as the demo shows it."""

    name: str
    state: str
    detail: str
    delivered_events: int
    delivered_spans: int
    in_flight_spans: int
    unread_bytes: int
    dead_spans: int

    @property
    def is_up_to_date(self) -> bool:
        """Whether nothing that could be sent is left."""
        return not (self.in_flight_spans or self.unread_bytes or self.dead_spans)


class FoundDifference(msgspec.Struct, frozen=True):
    """A field in which a span differs."""

    field: str


class FoundSpan(msgspec.Struct, frozen=True, kw_only=True):
    """A finding of `tracebridge validate --json`."""

    kind: str
    span_id: str
    differences: tuple[FoundDifference, ...]


class _Status(msgspec.Struct):
    sinks: list[SinkFigures]


class _Verdict(msgspec.Struct):
    findings: list[FoundSpan]


class Commands:
    """Runs `tracebridge --config FILE ...`."""

    def __init__(self, configuration: Path) -> None:
        self._configuration = configuration

    def line(self, *arguments: str) -> str:
        """Return a command as a user would type it."""
        return shlex.join(["tracebridge", "--config", str(self._configuration), *arguments])

    def run(self, *arguments: str) -> Ran:
        """Run a command."""
        ran = subprocess.run(
            [sys.executable, "-m", "tracebridge", "--config", str(self._configuration), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return Ran(self.line(*arguments), ran.returncode, ran.stdout)

    def run_at_once(self, *commands: Sequence[str]) -> list[Ran]:
        """Run several commands at the same time."""
        with ThreadPoolExecutor(max_workers=len(commands)) as threads:
            return list(threads.map(lambda arguments: self.run(*arguments), commands))

    def figures(self) -> dict[str, SinkFigures]:
        """Return what `status` tells of each sink, by name."""
        ran = self.run("status", "--json")
        return {sink.name: sink for sink in _decoded(ran, _Status).sinks}


def findings(ran: Ran) -> list[FoundSpan]:
    """Return what a `validate --json` has found."""
    return [finding for verdict in _decoded(ran, list[_Verdict]) for finding in verdict.findings]


def _decoded(ran: Ran, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(ran.output, type=kind)
    except msgspec.DecodeError as error:
        raise CommandError(
            f"`{ran.line}` ended with {ran.exit_code} and did not print what it should ({error}):\n{ran.output[-2000:]}"
        ) from error

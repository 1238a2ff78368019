"""`Report`: all that a report tells. What is told of it, and how, is up to the form."""

from __future__ import annotations

import msgspec

from tracebridge.delivery.evidence import Validation
from tracebridge.validation.verdict import Verdict


class DeclaredLoss(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a backend is known not to keep."""

    name: str
    words: str


class Day(msgspec.Struct, frozen=True, kw_only=True):
    """How many sessions began on a day, and how many of them are known to be at the backend."""

    date: str
    """The day in UTC, as `2026-02-06`."""
    owed: int
    compared: int
    """Of those: compared, in this validation or an earlier one, as they are now."""
    clean: int
    """Of those: nothing was found."""


class SinkReport(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to tell of one sink."""

    verdict: Verdict
    losses: tuple[DeclaredLoss, ...] = ()
    """All that the sink declares, whether they showed or not."""
    policy: tuple[str, ...] = ()
    """What limits what the sink is sent, as `include_thinking: false`; empty where it is sent everything."""
    days: tuple[Day, ...] = ()
    """The days on which owed sessions began, oldest first; days without any are left out."""
    validations: tuple[Validation, ...] = ()
    """The validations of the sink, newest first."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What one run of `tracebridge validate` has to tell."""

    sinks: tuple[SinkReport, ...]
    command: str
    """The command as somebody would type it again."""
    version: str
    """Of tracebridge."""
    made_ns: int

    @property
    def exit_code(self) -> int:
        """Of the whole run: 1 if anything was found, else 2 if something was not compared, else 0."""
        codes = {sink.verdict.exit_code for sink in self.sinks}
        return 1 if 1 in codes else max(codes, default=2)

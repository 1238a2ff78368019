"""`examine_sink`: what can be told of one sink, in bounded time whatever its plug-in does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from queue import Empty, SimpleQueue
from typing import Final, Literal

import msgspec

from tracebridge.config import SinkSettings
from tracebridge.diagnosis import Check, Diagnostic
from tracebridge.doctor.probe import probe
from tracebridge.errors import MissingExtraError, TracebridgeError
from tracebridge.threads import BackgroundThread

_GRACE_S: Final = 1.0
"""So much longer than it was given a sink may take, before it is left alone."""


class Examination(msgspec.Struct, frozen=True, kw_only=True):
    """What was found of one subject."""

    subject: str
    """`local`, or the name of a sink."""
    endpoint: str = ""
    """Where a sink sends to, without credentials."""
    checks: tuple[Check, ...]

    @property
    def has_failed(self) -> bool:
        """Whether something does not work."""
        return any(check.status == "fail" for check in self.checks)


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """All that was found."""

    examinations: tuple[Examination, ...]

    @property
    def exit_code(self) -> Literal[0, 1]:
        """0: nothing fails, though there may be warnings. 1: something does."""
        return 1 if any(examination.has_failed for examination in self.examinations) else 0


def examine_sink(sink: SinkSettings, timeout_s: float, *, with_probe: bool = True) -> Examination:
    """Examine a sink for at most `timeout_s` seconds and a little more."""
    if sink.defect:
        problem, _, remedy = sink.defect.rpartition("; ")
        return Examination(
            subject=sink.name, checks=(Check(name="plug-in", status="fail", found=problem, remedy=remedy),)
        )
    found: SimpleQueue[Check | str | None] = SimpleQueue()

    def examine() -> None:
        try:
            found.put(sink.endpoint)
            for check in _checks(sink, time.monotonic() + timeout_s, with_probe=with_probe):
                found.put(check)
        except (Exception, SystemExit) as error:  # a plug-in's code is not ours
            found.put(_failed(error))
        found.put(None)

    # a plug-in that hangs is left behind: a daemon thread keeps no process from its end
    BackgroundThread(target=examine, name=f"tracebridge-doctor-{sink.name}").start()
    endpoint, checks = _gathered(found, timeout_s)
    return Examination(subject=sink.name, endpoint=endpoint, checks=tuple(checks))


def _gathered(found: SimpleQueue[Check | str | None], timeout_s: float) -> tuple[str, list[Check]]:
    endpoint = ""
    checks: list[Check] = []
    deadline = time.monotonic() + timeout_s + _GRACE_S
    while True:
        try:
            next_found = found.get(timeout=max(deadline - time.monotonic(), 0.0))
        except Empty:
            after = f" after {checks[-1].name!r}" if checks else ""
            checks.append(
                Check(
                    name="time",
                    status="fail",
                    found=f"not done within {timeout_s:g} s: it hangs{after}",
                    remedy="look at what comes next, or give it longer with --timeout",
                )
            )
            return endpoint, checks
        if next_found is None:
            return endpoint, checks
        if isinstance(next_found, str):
            endpoint = next_found
        else:
            checks.append(next_found)


def _checks(sink: SinkSettings, ends_at: float, *, with_probe: bool) -> Iterator[Check]:
    failed = ""
    if isinstance(sink.sink_type, Diagnostic) and sink.settings is not None:
        for check in sink.sink_type.diagnose(sink.settings, _left(ends_at)):
            if check.status == "fail" and not failed:
                failed = check.name
            yield check
    if not with_probe:
        yield Check(name="probe", status="skip", found="not asked for")
    elif failed:
        yield Check(name="probe", status="skip", found=f"not sent, because {failed!r} fails")
    else:
        yield from probe(sink, ends_at)


def _failed(error: BaseException) -> Check:
    if isinstance(error, MissingExtraError):
        return Check(name="packages", status="fail", found=str(error), remedy="install them into this environment")
    if isinstance(error, TracebridgeError):
        return Check(name="settings", status="fail", found=str(error), remedy="correct the sink's settings")
    return Check(
        name="plug-in",
        status="fail",
        found=f"it raises {type(error).__name__}: {error}",
        remedy="report it to the plug-in's author",
    )


def _left(ends_at: float) -> float:
    return max(ends_at - time.monotonic(), 0.1)

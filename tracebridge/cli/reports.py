"""The files that `tracebridge validate` writes, `--html FILE` and `--junit FILE`."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tracebridge.errors import TracebridgeError
from tracebridge.version import own_version

if TYPE_CHECKING:
    from tracebridge.config import SinkSettings
    from tracebridge.validation import Verdict


class ReportError(TracebridgeError):
    """A report cannot be written: names the file and the reason."""


def add_report_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    parser.add_argument("--html", metavar="FILE", type=Path, help="write a page for who must sign off, self-contained")
    parser.add_argument("--junit", metavar="FILE", type=Path, help="write a JUnit report, for CI")


def check_places(arguments: argparse.Namespace) -> None:
    """Refuse files that cannot be written, before the work is done that they are to tell of.

    Raises:
        ReportError: a file cannot be written where it was asked for.
    """
    for option in ("html", "junit"):
        path: Path | None = getattr(arguments, option)
        if path is None:
            continue
        if path.is_dir():
            raise ReportError(f"--{option} {path}: is a folder; name a file in it")
        if not path.parent.is_dir():
            raise ReportError(f"--{option} {path}: there is no folder {path.parent}; make it first")
        if not os.access(path.parent, os.W_OK):
            raise ReportError(f"--{option} {path}: nothing may be written to {path.parent}")


def write_reports(
    arguments: argparse.Namespace, trace_dir: Path, validated: Sequence[tuple[SinkSettings, Verdict]]
) -> None:
    """Write the reports that were asked for, each as a whole or not at all.

    Raises:
        ReportError: a file cannot be written.
        StateError: the state cannot be used.
    """
    if arguments.html is None and arguments.junit is None:
        return
    from tracebridge.report import Report, SinkReport, junit, page
    from tracebridge.report.collect import sink_report

    report = Report(
        sinks=tuple(
            SinkReport(verdict=verdict) if sink.defect else sink_report(sink, trace_dir, verdict)
            for sink, verdict in validated
        ),
        command=arguments.line,
        version=own_version(),
        made_ns=time.time_ns(),
    )
    if arguments.html is not None:
        _write(arguments.html, page.document(report))
    if arguments.junit is not None:
        _write(arguments.junit, junit.document(report))


def _write(path: Path, text: str) -> None:
    """Replace a file: who reads it, or is stopped while it is written, has the old one or the new one."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_text(text, encoding="utf-8")
        os.replace(unfinished, path)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink()
        raise ReportError(f"{path}: the report cannot be written: {error.strerror or error}") from error

"""Makes the pictures of the documentation anew: `python -m tests.report.pictures`, with Chromium installed."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tests.report.chromium import opened_tab, require
from tests.report.samples import BEGAN_NS, SECOND, finding, verdict
from tracebridge.report import Day, DeclaredLoss, Report, SinkReport, page
from tracebridge.validation import Difference, Finding, Uncompared, Verdict

FOLDER: Final = Path(__file__).resolve().parent.parent.parent / "docs" / "pictures"
DAYS: Final = 38


def main() -> None:
    """Take the pictures."""
    with (
        TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        opened_tab(require(), Path(folder) / "profile") as tab,
    ):
        for name, told, width, height in (("report-desk", _clean(), 1120, 1330), ("report-phone", _found(), 390, 1760)):
            file = Path(folder) / "report.html"
            file.write_text(page.document(told), encoding="utf-8")
            tab.ask("Emulation.setScrollbarsHidden", hidden=True)
            tab.open(file, width, height)
            (FOLDER / f"{name}.png").write_bytes(tab.screenshot())


def _clean() -> Report:
    days = tuple(
        Day(date=(date(2026, 10, 20) + timedelta(days=number)).isoformat(), owed=owed, compared=owed, clean=owed)
        for number, owed in enumerate(3 + (number * 7) % 11 for number in range(DAYS))
    )
    return _report(_verdict(sum(day.owed for day in days)), days)


def _found() -> Report:
    place = "/srv/agent/traces/session-{0}/events.jsonl:{1}"
    changed = Difference(
        field="output",
        expected="Your kettle was shipped this morning, and arrives tomorrow.",
        observed="Your kettle was sent this evening, and arrives tomorrow.",
    )
    findings = (
        finding("different", span_kind="turn", name="turn", differences=(changed,), journal=place.format("ada", 41)),
    )
    still_open = (Uncompared(session_id="eva", reason="still open: its last run has not ended"),)
    return _report(_verdict(318, findings, still_open), ())


def _verdict(sessions: int, findings: tuple[Finding, ...] = (), uncompared: tuple[Uncompared, ...] = ()) -> Verdict:
    spans = {"session": sessions, "turn": 1_204, "llm": 1_893, "tool": 816}
    total = sum(spans.values())
    return verdict(
        sessions=sessions,
        spans=spans,
        expected=total,
        observed=total,
        equal=total - len(findings),
        losses={"time-in-milliseconds": total - len(findings)},
        findings=findings,
        uncompared=uncompared,
        ended_ns=BEGAN_NS + 83 * SECOND,
    )


def _report(told: Verdict, days: tuple[Day, ...]) -> Report:
    words = "LangFuse cuts start and end times to whole milliseconds."
    losses = (DeclaredLoss(name="time-in-milliseconds", words=words),)
    return Report(
        sinks=(SinkReport(verdict=told, losses=losses, days=days),),
        command="tracebridge validate --sink langfuse --html report.html",
        version="0.1.0",
        made_ns=BEGAN_NS + 84 * SECOND,
    )


if __name__ == "__main__":
    main()

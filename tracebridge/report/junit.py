"""The report as JUnit XML, for CI.

A sink is a suite, and each question that validation answers is a test case: the same ones in every run, however many
sessions there are, so that CI can show since when one fails. What was found is in the text of the failure.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from tracebridge.report import words
from tracebridge.report.markup import Element, element
from tracebridge.report.record import Report, SinkReport
from tracebridge.report.visible import in_one_line
from tracebridge.validation.comparison import Finding
from tracebridge.validation.verdict import Verdict

MOST_SHOWN: Final = 50
"""Findings of a class, and things that were not compared, whose text is in the report; all are counted."""

_QUESTIONS: Final = {
    "missing": "no span is missing",
    "different": "no span is different",
    "duplicate": "no span is there too often",
    "extra": "no span is there that was never recorded",
    "pending": "no span is pending",
}
_COMPARED: Final = "everything that is owed was compared"


def document(report: Report) -> str:
    """The XML document."""
    suites = [_suite(sink, number, report.made_ns) for number, sink in enumerate(report.sinks)]
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{element("testsuites", suites)}\n'


def _suite(sink: SinkReport, number: int, made_ns: int) -> Element:
    verdict = sink.verdict
    failed = [kind for kind in _questions(verdict) if verdict.counts.get(kind)]
    seconds = f"{max(0, verdict.ended_ns - verdict.began_ns) / 1e9:.3f}"
    return element(
        "testsuite",
        element("properties", list(_properties(verdict))),
        _case(verdict.sink, _COMPARED, seconds, _not_compared(verdict)),
        [
            _case(verdict.sink, question, "0", _failure(verdict, kind) if kind in failed else None)
            for kind, question in _questions(verdict).items()
        ],
        element("system-out", words.answer(sink)),
        element("system-err"),
        name=f"tracebridge.{verdict.sink}",
        package="tracebridge",
        id=str(number),
        hostname="localhost",
        timestamp=datetime.fromtimestamp((verdict.began_ns or made_ns) // 1_000_000_000, UTC).strftime(
            "%Y-%m-%dT%H:%M:%S"
        ),
        tests=str(1 + len(_questions(verdict))),
        failures=str(len(failed)),
        errors=str(int(verdict.is_incomplete)),
        skipped="0",
        time=seconds,
    )


def _questions(verdict: Verdict) -> dict[str, str]:
    """The questions by kind of finding, with one for each kind that this module does not know."""
    unknown = sorted(verdict.counts.keys() - _QUESTIONS.keys() - {"foreign"})
    return {**_QUESTIONS, **{kind: f"no span is {kind}" for kind in unknown}}


def _properties(verdict: Verdict) -> Iterator[Element]:
    properties = {
        "endpoint": words.without_credentials(verdict.endpoint),
        "scope": "; ".join(words.asked_for(verdict.scope)),
        "sessions": str(verdict.sessions),
        **({"found clean before": str(verdict.known_clean)} if verdict.known_clean else {}),
        "expected": str(verdict.expected),
        "equal": str(verdict.equal),
        "foreign": str(verdict.counts.get("foreign", 0)),
        **{f"declared loss {name}": str(count) for name, count in verdict.losses.items()},
    }
    # the schema wants names without spaces at their ends, and values that are not empty
    for name, value in properties.items():
        yield element("property", name=in_one_line(name), value=in_one_line(value) or "none")


def _case(sink: str, name: str, seconds: str, trouble: Element | None) -> Element:
    return element("testcase", trouble, classname=f"tracebridge.{sink}", name=name, time=seconds)


def _not_compared(verdict: Verdict) -> Element | None:
    if not verdict.is_incomplete:
        return None
    lines = [
        f"session {in_one_line(one.session_id)}: {in_one_line(one.reason)}"
        if one.session_id
        else in_one_line(one.reason)
        for one in verdict.uncompared[:MOST_SHOWN]
    ]
    said = words.not_compared(verdict) or "nothing was compared"
    return element("error", _text(lines, len(verdict.uncompared)), message=said, type="uncompared")


def _failure(verdict: Verdict, kind: str) -> Element:
    findings = [finding for finding in verdict.findings if finding.kind == kind][:MOST_SHOWN]
    lines = [line for finding in findings for line in _lines(finding)]
    count = verdict.counts[kind]
    said = f"{words.quantity(count, 'span')}: {words.class_of(kind).meaning}"
    return element("failure", _text(lines, count - len(findings) + len(lines)), message=said, type=kind)


def _lines(finding: Finding) -> Iterator[str]:
    yield in_one_line(
        f"{words.span_name(finding)} of session {finding.session_id} (trace {finding.trace_id}, span {finding.span_id})"
    )
    fields = ", ".join(difference.field for difference in finding.differences)
    for label, value in (
        ("differs in", fields),
        ("recorded in", finding.journal),
        ("shown at", finding.link),
        ("to do", finding.command),
    ):
        if value:
            yield f"  {label}: {in_one_line(value)}"


def _text(lines: list[str], total: int) -> str:
    more = [f"and {total - len(lines):,} more"] if total > len(lines) else []
    return "\n".join([*lines, *more])

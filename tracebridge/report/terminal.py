"""A verdict in lines of plain text, for a terminal: what it is first, then what it rests on."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from typing import Final

from tracebridge.event import Json
from tracebridge.report import words
from tracebridge.report.marking import common_start
from tracebridge.report.visible import in_one_line
from tracebridge.validation.comparison import Difference, Finding
from tracebridge.validation.verdict import Verdict

WIDTH: Final = 80
MOST_SHOWN: Final = 20
"""Findings, and things that were not compared, that are shown; all are counted."""

_VERDICTS: Final = {0: "CLEAN", 1: "FINDINGS", 2: "NOT EVERYTHING COULD BE COMPARED"}
_CONTEXT: Final = 16
"""Characters that are shown before the first one that differs, where a value is too long to be shown whole."""


def lines(verdict: Verdict) -> Iterator[str]:
    """The lines, none of them longer than `WIDTH` but for what has no place to be broken, as addresses."""
    # whoever wrote a line below: what is in it must not command the terminal
    return map(in_one_line, _lines(verdict))


def _lines(verdict: Verdict) -> Iterator[str]:
    endpoint = words.without_credentials(verdict.endpoint)
    yield f"{verdict.sink}: {_VERDICTS[verdict.exit_code]}" + (f" ({endpoint})" if endpoint else "")
    yield from _row(
        "compared", f"{words.quantity(verdict.sessions, 'session')}, {words.quantity(verdict.expected, 'span')}"
    )
    if verdict.spans:
        yield from _row("", words.spans_by_kind(verdict))
    if verdict.known_clean:
        yield from _row("", words.known_clean(verdict))
    yield from _row("equal", f"{verdict.equal:,}")
    for name, count in verdict.losses.items():
        yield from _row("", f"{count:,} of them up to the declared loss {name}")
    for kind in words.in_order(verdict.counts):
        meaning = words.class_of(kind).meaning
        yield from _row(kind, f"{verdict.counts[kind]:,}" + (f"  {meaning}" if meaning else ""))
    if verdict.scope != type(verdict.scope)():
        yield from _row("scope", "; ".join(words.asked_for(verdict.scope)))
    if sampled := words.sample(verdict):
        yield from _row("sample", sampled)
    for name, count in verdict.policy.items():
        yield from _row("policy", f"{count:,} {name}")
    for field, count in verdict.server_computed.items():
        yield from _row("computed", f"{field}: {words.quantity(count, 'span')} with a value of the backend's own")
    if verdict.resent:
        yield from _row("resent", f"{words.quantity(verdict.resent, 'missing span')}, by whoever ships next")
    yield from _findings(verdict)
    yield from _uncompared(verdict)


def _row(label: str, text: str) -> Iterator[str]:
    # ids and paths are not broken: they are there to be copied
    yield from textwrap.wrap(
        in_one_line(text),
        WIDTH,
        initial_indent=f"  {label:<10} ",
        subsequent_indent=" " * 13,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _findings(verdict: Verdict) -> Iterator[str]:
    order = {kind: number for number, kind in enumerate(words.in_order(verdict.counts))}
    shown = sorted(verdict.findings, key=lambda finding: order.get(finding.kind, len(order)))[:MOST_SHOWN]
    for finding in shown:
        yield from _finding(finding)
    total = sum(verdict.counts.values())
    if total > len(shown):
        yield f"  … and {total - len(shown):,} more: --html and --json tell of them"


def _finding(finding: Finding) -> Iterator[str]:
    said = f"{finding.kind}: {words.span_name(finding)} of session {finding.session_id}"
    yield from textwrap.wrap(
        in_one_line(f"  - {said}"), WIDTH, subsequent_indent=" " * 6, break_long_words=False, break_on_hyphens=False
    )
    yield f"      trace {finding.trace_id}, span {finding.span_id}"
    for label, value in (("recorded", finding.journal), ("shown", finding.link), ("to do", finding.command)):
        if value:
            yield f"      {label}: {value}"
    for difference in finding.differences:
        yield f"      {difference.field}"
        for side, text in zip(("journal", "backend"), _sides(difference), strict=True):
            yield f"        {side}: {text}"


def _sides(difference: Difference) -> tuple[str, str]:
    """Both values as JSON; of long ones the part in which they begin to differ."""
    expected, observed = _as_json(difference.expected), _as_json(difference.observed)
    room = WIDTH - len("        journal: ")
    if max(len(expected), len(observed)) <= room:
        return in_one_line(expected), in_one_line(observed)
    begin = max(0, common_start(expected, observed) - _CONTEXT)
    return _window(expected, begin, room), _window(observed, begin, room)


def _window(text: str, begin: int, room: int) -> str:
    size = f" ({len(text):,} characters)"
    head = "…" if begin else ""
    room -= len(head) + 1 + len(size)
    tail = "…" if len(text) > begin + room else ""
    return in_one_line(f"{head}{text[begin : begin + room]}{tail}") + size


def _uncompared(verdict: Verdict) -> Iterator[str]:
    for one in verdict.uncompared[:MOST_SHOWN]:
        session = f"session {one.session_id}: " if one.session_id else ""
        yield from textwrap.wrap(
            in_one_line(f"  not compared: {session}{one.reason}"),
            WIDTH,
            subsequent_indent=" " * 6,
            break_long_words=False,
            break_on_hyphens=False,
        )
    if len(verdict.uncompared) > MOST_SHOWN:
        yield f"  … and {len(verdict.uncompared) - MOST_SHOWN:,} more not compared: --html and --json tell of them"


def _as_json(value: Json) -> str:
    # the order of keys is no difference, so it must not look like one
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)

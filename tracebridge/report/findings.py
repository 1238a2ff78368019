"""The findings of a verdict, class by class, with what differs side by side."""

from __future__ import annotations

import json
from typing import Final

from tracebridge.event import Json
from tracebridge.report import words
from tracebridge.report.marking import Pieces, marked, shortened
from tracebridge.report.markup import Child, Element, element, link
from tracebridge.validation.comparison import Difference, Finding
from tracebridge.validation.verdict import Verdict

MOST_SHOWN: Final = 50
"""Findings of a class that are shown; all are counted."""
CONTEXT: Final = 160
"""Characters that are shown before and after a change."""
MOST_CHANGED: Final = 2_000
"""Characters of a change that are shown."""
MOST_PIECES: Final = 200
"""Pieces of a side that are shown: a text that changed everywhere is not shown whole."""


def findings(verdict: Verdict) -> Child:
    """All that was found, the worst class first; what was not found is said as well."""
    title = element("h3", "Findings")
    kinds = words.in_order(verdict.counts)
    if not kinds:
        return [title, element("p", _nothing(verdict))]
    return [title, [_of_kind(verdict, kind) for kind in kinds]]


def _nothing(verdict: Verdict) -> str:
    if not verdict.sessions:
        return "None; nothing is new." if verdict.known_clean else "None, but nothing was compared either."
    return "None: nothing is missing, different, there too often, or there without having been recorded."


def _of_kind(verdict: Verdict, kind: str) -> Child:
    found = [finding for finding in verdict.findings if finding.kind == kind]
    count = verdict.counts[kind]
    shown = found[:MOST_SHOWN]
    more = element("p", f"and {count - len(shown):,} more; validate --json names them", class_="soft")
    named = words.class_of(kind)
    return [
        element("h4", f"{named.title}: {words.quantity(count, 'span')}"),
        element("p", named.meaning, class_="soft"),
        [_finding(finding) for finding in shown],
        more if count > len(shown) else None,
    ]


def _finding(finding: Finding) -> Element:
    facts: dict[str, Child] = {
        "Session": element("code", finding.session_id),
        "Recorded in": element("code", finding.journal) if finding.journal else None,
        "Shown at": link(finding.link, finding.link) if finding.link else None,
        "To do": element("code", finding.command) if finding.command else None,
        "Ids": ["trace ", element("code", finding.trace_id), " span ", element("code", finding.span_id)],
    }
    named = [[element("dt", name), element("dd", fact)] for name, fact in facts.items() if fact is not None]
    return element(
        "article",
        element("h5", words.span_name(finding)),
        element("dl", named),
        [_difference(difference) for difference in finding.differences],
        class_="finding",
    )


def _difference(difference: Difference) -> Child:
    expected, observed = _texts(difference.expected, difference.observed)
    left, right = marked(expected, observed)
    return [
        element("p", difference.field, class_="field"),
        element(
            "div",
            _side("The journal", "expected", left),
            _side("The backend", "observed", right),
            class_="sides",
        ),
    ]


def _side(title: str, look: str, pieces: Pieces) -> Element:
    short = shortened(pieces, CONTEXT, MOST_CHANGED)
    shown: list[Child] = []
    for piece in short[:MOST_PIECES]:
        shown.append(element("mark", piece.text) if piece.is_changed else piece.text)
        shown.append(_skipped(piece.left_out))
    shown.append(_skipped(sum(len(piece.text) + piece.left_out for piece in short[MOST_PIECES:])))
    content: Child = shown if pieces else element("span", "(empty)", class_="skipped")
    return element("div", element("h6", title), element("p", content, class_="text", dir="auto"), class_=f"side {look}")


def _skipped(characters: int) -> Child:
    return element("span", f"… {characters:,} characters …", class_="skipped") if characters else None


def _texts(expected: Json, observed: Json) -> tuple[str, str]:
    """Both values as people read them: texts as they are, but where the kind of value differs, as JSON."""
    if isinstance(expected, str) and isinstance(observed, str):
        return expected, observed
    return _as_json(expected), _as_json(observed)


def _as_json(value: Json) -> str:
    # the order of keys is no difference, so it must not look like one
    return json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True)

"""The part of the page that is about one sink."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from tracebridge.delivery.evidence import Validation
from tracebridge.report import words
from tracebridge.report.chart import coverage
from tracebridge.report.findings import findings
from tracebridge.report.markup import Child, Element, element
from tracebridge.report.record import SinkReport
from tracebridge.validation.scope import Scope
from tracebridge.validation.verdict import Verdict

MOST_NAMED: Final = 200
"""Things that were not compared that are named; all are counted."""
MOST_VALIDATIONS: Final = 10


def sink_section(sink: SinkReport, look: str, name: str) -> Element:
    """All that there is to tell of a sink. `look` and `name` are those of its verdict."""
    verdict = sink.verdict
    return element(
        "section",
        element("div", element("h2", verdict.sink), element("span", name, class_=f"badge {look}"), class_="top"),
        _tiles(verdict),
        element("h3", "What was compared"),
        _facts(sink),
        findings(verdict),
        _uncompared(verdict),
        coverage(sink.days),
        _losses(sink),
        _on_purpose(verdict),
        _validations(sink.validations),
        class_="sink",
    )


def _tiles(verdict: Verdict) -> Element:
    found = sum(count for kind, count in verdict.counts.items() if kind != "foreign")
    unread = len(verdict.uncompared)
    tiles = [
        ("Spans recorded", verdict.expected, ""),
        ("There and equal", verdict.equal, ""),
        ("Findings", found, "is-bad" if found else ""),
        ("Not compared", unread, "is-open" if unread else ""),
    ]
    return element(
        "dl",
        [
            element("div", element("dt", label), element("dd", f"{count:,}"), class_=look)
            for label, count, look in tiles
        ],
        class_="tiles",
    )


def _facts(sink: SinkReport) -> Element:
    verdict = sink.verdict
    facts: dict[str, Child] = {
        "Backend": element("code", words.without_credentials(verdict.endpoint)),
        "Sessions": f"{verdict.sessions:,} compared as a whole",
        "Spans": words.spans_by_kind(verdict) or "none",
        "Scope": _sentence("; ".join(words.asked_for(verdict.scope))),
    }
    if drawn := words.sample(verdict):
        facts["Sample"] = drawn
    facts["Policy"] = _policy(sink.policy)
    if verdict.began_ns and verdict.ended_ns:
        facts["When"] = (
            f"{words.moment(verdict.began_ns)} to {words.moment(verdict.ended_ns)} "
            f"({words.took(verdict.began_ns, verdict.ended_ns)})"
        )
    return _table_of_facts(facts)


def _table_of_facts(facts: Mapping[str, Child]) -> Element:
    rows = [element("tr", element("th", name, scope="row"), element("td", fact)) for name, fact in facts.items()]
    return element("table", element("tbody", rows), class_="facts")


def _policy(changed: tuple[str, ...]) -> Child:
    if not changed:
        return "All that was recorded"
    rules: Child = [[element("code", one), " "] for one in changed]
    return ["Of what was recorded, what these settings leave: ", rules]


def _uncompared(verdict: Verdict) -> Child:
    if not verdict.uncompared:
        return None
    by_reason: dict[str, list[str]] = {}
    for one in verdict.uncompared:
        by_reason.setdefault(one.reason, []).append(one.session_id)
    groups: list[Child] = []
    for reason, sessions in list(by_reason.items())[:MOST_NAMED]:
        named = [session for session in sessions if session]
        more = f" and {len(named) - MOST_NAMED:,} more" if len(named) > MOST_NAMED else ""
        ids: Child = [[element("code", session), " "] for session in named[:MOST_NAMED]]
        groups.append(
            element("li", [words.quantity(len(named), "session"), ": "] if named else None, reason, " ", ids, more)
        )
    left = len(by_reason) - MOST_NAMED
    if left > 0:
        groups.append(element("li", f"and {left:,} reasons more"))
    return [element("h3", "What was not compared, and why"), element("ul", groups, class_="plain")]


def _losses(sink: SinkReport) -> Child:
    title = element("h3", "Declared losses")
    if not sink.losses and not sink.verdict.losses:
        return [title, element("p", "None: whatever was recorded must be there, exactly.")]
    words_of = {loss.name: loss.words for loss in sink.losses}
    counts = sink.verdict.losses
    rows = [
        element(
            "tr",
            element("th", name, scope="row"),
            element("td", words_of.get(name, "")),
            element("td", f"{counts.get(name, 0):,}", class_="number"),
        )
        for name in dict.fromkeys([*words_of, *counts])
    ]
    head = element(
        "tr",
        element("th", "Name", scope="col"),
        element("th", "What the backend does not keep", scope="col"),
        element("th", "Spans", scope="col", class_="number"),
    )
    return [
        title,
        element("p", "Known and accepted: two spans that differ in nothing else count as equal.", class_="soft"),
        element("table", element("thead", head), element("tbody", rows), class_="named"),
    ]


def _on_purpose(verdict: Verdict) -> Child:
    said: list[Child] = [element("li", f"{count:,} {name}") for name, count in verdict.policy.items()]
    if said:
        said = [
            element("h3", "Left out on purpose"),
            element("p", "By the sink's policy; not expected at the backend.", class_="soft"),
            element("ul", said, class_="plain"),
        ]
    if verdict.server_computed:
        fields = [
            element("li", element("code", field), f" {words.quantity(count, 'span')}")
            for field, count in verdict.server_computed.items()
        ]
        said += [
            element("h3", "Computed by the backend"),
            element("p", "Values that the backend adds by itself, as prices; no difference.", class_="soft"),
            element("ul", fields, class_="plain"),
        ]
    return said


class _Summary(msgspec.Struct):
    """As much of a validation's summary as is told of it."""

    exit_code: int | None = None
    sessions: int | None = None
    expected: int | None = None
    equal: int | None = None


def _validations(validations: tuple[Validation, ...]) -> Child:
    if not validations:
        return None
    head = [element("th", name, scope="col") for name in ("Began", "Scope", "Came to")]
    rows = [
        element(
            "tr",
            element("td", words.moment(one.began_ns)),
            element("td", _scope_of(one)),
            element("td", _came_to(one)),
        )
        for one in validations[:MOST_VALIDATIONS]
    ]
    return [
        element("h3", "Validations so far"),
        element("table", element("thead", element("tr", head)), element("tbody", rows)),
        element("p", f"and {len(validations) - MOST_VALIDATIONS:,} earlier ones", class_="soft")
        if len(validations) > MOST_VALIDATIONS
        else None,
    ]


def _scope_of(validation: Validation) -> str:
    try:
        asked = msgspec.json.decode(validation.scope, type=Scope)
    except ValueError:
        return validation.scope
    said = words.asked_for(asked)
    if asked.sample < 1:
        said = [*said, f"{asked.sample * 100:g} % of them"]
    return _sentence("; ".join(said))


def _came_to(validation: Validation) -> str:
    if not validation.ended_ns:
        return "was broken off"
    try:
        summary = msgspec.json.decode(validation.summary, type=_Summary)
    except ValueError:
        return validation.summary
    said = []
    if summary.exit_code is not None:
        said.append({0: "clean", 1: "findings"}.get(summary.exit_code, "not everything was compared"))
    if summary.sessions is not None:
        said.append(words.quantity(summary.sessions, "session"))
    if summary.equal is not None and summary.expected is not None:
        said.append(f"{summary.equal:,} of {words.quantity(summary.expected, 'span')} equal")
    return ", ".join(said) or validation.summary


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]

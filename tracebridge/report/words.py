"""What a verdict comes to, in words that somebody who must decide understands. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

from tracebridge.report.record import Report, SinkReport
from tracebridge.validation.comparison import Finding
from tracebridge.validation.sample import CONFIDENCE
from tracebridge.validation.scope import Scope
from tracebridge.validation.verdict import Verdict

_CREDENTIALS: Final = re.compile(r"(?<=//)[^/@\s]*@")


class Class(NamedTuple):
    """A kind of finding, in words."""

    title: str
    meaning: str
    one: str
    """What is said of one span."""
    many: str


CLASSES: Final = {
    "missing": Class("Missing", "Recorded in the journal, and not there.", "is missing", "are missing"),
    "different": Class("Different", "There, but not as recorded.", "differs", "differ"),
    "duplicate": Class("Duplicate", "There more often than recorded.", "is there too often", "are there too often"),
    "extra": Class(
        "Extra",
        "Sent by tracebridge, and not in the journal.",
        "is there that was never recorded",
        "are there that were never recorded",
    ),
    "pending": Class("Pending", "Not there yet, and perhaps not due yet.", "is not there yet", "are not there yet"),
    "foreign": Class(
        "Foreign", "Another service's span in one of these traces. No defect.", "is foreign", "are foreign"
    ),
}
"""By kind of finding, in the order in which people should look at them."""


def in_order(counts: dict[str, int]) -> list[str]:
    """The kinds of finding that there are, the worst first; one that has no words here comes last."""
    return [*(kind for kind in CLASSES if counts.get(kind)), *sorted(counts.keys() - CLASSES.keys())]


def class_of(kind: str) -> Class:
    """A kind of finding in words."""
    return CLASSES.get(kind) or Class(kind.capitalize(), "", f"is {kind}", f"are {kind}")


def quantity(count: int, noun: str) -> str:
    """`1 span`, `1,234 spans`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def title(report: Report) -> str:
    """The answer of the whole report, in a few words."""
    wrong = [sink.verdict.sink for sink in report.sinks if sink.verdict.exit_code == 1]
    if wrong:
        return f"Do not switch anything off: {listed(wrong)} {'is' if len(wrong) == 1 else 'are'} not as recorded"
    unproved = [sink.verdict.sink for sink in report.sinks if sink.verdict.exit_code != 0]
    if unproved or not report.sinks:
        return f"Not proved yet: {listed(unproved)} could not be compared in full"
    names = listed([sink.verdict.sink for sink in report.sinks])
    narrowed = [sink.verdict.sink for sink in report.sinks if sink.verdict.policy]
    but = f" but what the policy of {listed(narrowed)} leaves out" if narrowed else ""
    if all(_is_everything(sink.verdict.scope) for sink in report.sinks):
        if narrowed:
            return f"Nothing is lost{but}"
        return f"Nothing is lost: {names} {'holds' if len(report.sinks) == 1 else 'hold'} all that was recorded"
    return f"Nothing is lost in what was compared with {names}{but}"


def answer(sink: SinkReport) -> str:
    """What validating a sink came to, in one sentence."""
    verdict = sink.verdict
    if verdict.exit_code == 0:
        return _clean(sink)
    found = [_said_of(kind, verdict.counts[kind]) for kind in in_order(verdict.counts) if kind != "foreign"]
    unread = not_compared(verdict)
    if verdict.exit_code == 1:
        rest = f"; {unread}" if unread else ""
        equal = f"{verdict.equal:,} of {quantity(verdict.expected, 'span')} are equal"
        return f"In {verdict.sink}, {listed(found)}; {equal}{rest}."
    if verdict.sessions == 0:
        return f"Nothing was compared with {verdict.sink}, so nothing is proved."
    return (
        f"With {verdict.sink}, {listed([*filter(None, [unread]), *found])}; "
        f"{verdict.equal:,} of {quantity(verdict.expected, 'span')} in "
        f"{quantity(verdict.sessions, 'session')} are equal."
    )


def not_compared(verdict: Verdict) -> str:
    """How much of what should have been compared was not, in words; empty if there is nothing."""
    sessions = sum(bool(one.session_id) for one in verdict.uncompared)
    others = len(verdict.uncompared) - sessions
    said = [quantity(sessions, "session")] if sessions else []
    if others:
        said.append(quantity(others, "other thing" if sessions else "thing"))
    return f"{listed(said)} could not be compared" if said else ""


def _clean(sink: SinkReport) -> str:
    verdict = sink.verdict
    if not verdict.sessions:
        before = quantity(verdict.known_clean, "session")
        return f"Nothing is new to compare with {verdict.sink}; {before} were found clean before, and have not changed."
    is_sample = verdict.scope.sample < 1
    drawn = f"{verdict.sessions:,} drawn of {quantity(verdict.drawn_from, 'session')}" if verdict.drawn_from else ""
    sessions = drawn if is_sample and drawn else quantity(verdict.sessions, "session")
    recorded = ""
    if _is_everything(verdict.scope) and sink.days:
        first, last = sink.days[0].date, sink.days[-1].date
        recorded = f" recorded on {first}" if first == last else f" recorded between {first} and {last}"
    losses = f", up to {len(verdict.losses)} declared {'loss' if len(verdict.losses) == 1 else 'losses'}"
    named = ", ".join(f"{count:,} {name}" for name, count in verdict.policy.items())
    left_out = f", but for what its policy left out ({named})" if named else ""
    return (
        f"All {quantity(verdict.expected, 'span')} of {sessions}{recorded} are in {verdict.sink} and equal"
        f"{losses if verdict.losses else ''}{left_out}{f'; {known_clean(verdict)}' if verdict.known_clean else ''}."
    )


def _said_of(kind: str, count: int) -> str:
    words = class_of(kind)
    return f"{quantity(count, 'span')} {words.one if count == 1 else words.many}"


def asked_for(asked: Scope) -> list[str]:
    """What was asked to be compared, in a few short statements; a sample is told of by `sample`."""
    said = []
    if asked.session_id is not None:
        said.append(f"only the session {asked.session_id}")
    if asked.since_ns is not None:
        said.append(f"only what was recorded from {moment(asked.since_ns)} on")
    if asked.until_ns is not None:
        said.append(f"only sessions that began before {moment(asked.until_ns)}")
    if asked.environment is not None:
        said.append(f"only the environment {asked.environment}")
    if asked.since_last:
        said.append("only what was not compared clean before")
    return said or ["every session that is owed to the sink"]


def sample(verdict: Verdict) -> str:
    """What was drawn, and how much it proves; empty where all was compared."""
    if verdict.scope.sample >= 1:
        return ""
    drawn = f"{verdict.scope.sample * 100:g} % of the sessions, the same ones every time"
    if verdict.drawn_from:
        drawn += f": {verdict.sessions:,} of {verdict.drawn_from:,}"
    if verdict.exit_code != 0 or not verdict.sessions:
        return drawn
    bound = quantity(verdict.undetected, "session")
    return f"{drawn}. With {CONFIDENCE:.0%} confidence, at most {bound} of them all are not as recorded"


def known_clean(verdict: Verdict) -> str:
    """What is said of the sessions that were compared before."""
    return f"{quantity(verdict.known_clean, 'session')} more were found clean before, and have not changed"


def span_name(finding: Finding) -> str:
    """`tool find_order`, and `turn` where the name says no more."""
    return finding.span_kind if finding.name == finding.span_kind else f"{finding.span_kind} {finding.name}"


def spans_by_kind(verdict: Verdict) -> str:
    """`6 llm, 8 tool`, the most frequent first."""
    return ", ".join(
        f"{count:,} {kind}" for kind, count in sorted(verdict.spans.items(), key=lambda item: (-item[1], item[0]))
    )


def moment(time_ns: int) -> str:
    """A moment in UTC, to the second."""
    return datetime.fromtimestamp(time_ns // 1_000_000_000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def took(began_ns: int, ended_ns: int) -> str:
    """How long something took."""
    seconds = max(0, ended_ns - began_ns) / 1e9
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def without_credentials(endpoint: str) -> str:
    """An address without a user name and password that somebody wrote into it."""
    return _CREDENTIALS.sub("", endpoint)


def listed(words: Sequence[str]) -> str:
    """`a, b and c`."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"


def _is_everything(asked: Scope) -> bool:
    return asked == Scope()

"""Verdicts and reports to be told of: clean ones, ones with findings, and content that means to do harm."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from hypothesis import strategies as st

from tracebridge.delivery.evidence import Validation
from tracebridge.report import Day, DeclaredLoss, Report, SinkReport
from tracebridge.validation import Difference, Finding, Uncompared, Verdict

SECOND: Final = 1_000_000_000
BEGAN_NS: Final = 1_795_784_525 * SECOND
"""2026-11-27 13:02:05 UTC."""

HOSTILE: Final = (
    "<script>alert(1)</script>",
    "</style></title></pre><img src=x onerror=alert(1)>",
    "\"' onmouseover='alert(1)",
    "]]>-->",
    "&lt;b&gt;&amp;#60;",
    "javascript:alert(1)",
    "\u202etxt.exe\u202c\u2066",
    "\x00\x07\x1b[31mred\x1b[0m\x7f\x85",
    "\ud800\udfff lone",
    "\ufffe\uffff\u2028",
    "{{ 7 * 7 }} {% raw %}",
)


def verdict(**changes: Any) -> Verdict:
    """A clean one, with what is given changed."""
    clean: dict[str, Any] = {
        "sink": "langfuse",
        "endpoint": "http://127.0.0.1:3000",
        "sessions": 3,
        "spans": {"llm": 6, "tool": 8, "turn": 5, "session": 4},
        "expected": 23,
        "observed": 23,
        "equal": 23,
        "losses": {},
        "findings": (),
        "uncompared": (),
        "began_ns": BEGAN_NS,
        "ended_ns": BEGAN_NS + 2 * SECOND,
    }
    clean["counts"] = dict(Counter(found.kind for found in changes.get("findings", ())))
    return Verdict(**{**clean, **changes})


def finding(kind: Any = "missing", **changes: Any) -> Finding:
    usual: dict[str, Any] = {
        "kind": kind,
        "session_id": "ada",
        "trace_id": "a" * 32,
        "span_id": "b" * 16,
        "span_kind": "tool",
        "name": "find_order",
    }
    return Finding(**{**usual, **changes})


def different(expected: Any, observed: Any, field: str = "output") -> Finding:
    return finding("different", differences=(Difference(field=field, expected=expected, observed=observed),))


def report(*verdicts: Verdict, **changes: Any) -> Report:
    """A report on the verdicts, with what is given about each of the sinks."""
    return Report(
        sinks=tuple(SinkReport(verdict=one, **changes) for one in verdicts),
        command="tracebridge validate --html report.html",
        version="1.2.3",
        made_ns=BEGAN_NS + 3 * SECOND,
    )


def hostile_report(text: str) -> Report:
    """A report with a text wherever somebody else's text may stand."""
    found = (
        finding("missing", session_id=text, name=text, journal=text, link=text, command=text),
        finding("extra", span_kind=text, trace_id=text, span_id=text, link=f"https://example.com/{text}"),
        different(text, {text: [text]}, field=text),
        different(text, text[::-1] + text),
    )
    told = verdict(
        sink=text,
        endpoint=text,
        spans={text: 1},
        losses={text: 1},
        findings=found,
        uncompared=(Uncompared(session_id=text, reason=text), Uncompared(session_id="", reason=text)),
        policy={text: 1},
        server_computed={text: 1},
    )
    return report(
        told,
        losses=(DeclaredLoss(name=text, words=text),),
        policy=(text,),
        days=(Day(date=text, owed=2, compared=1, clean=1),),
        validations=(Validation(id=1, began_ns=0, ended_ns=1, scope=text, summary=text),),
    )


TEXTS: Final = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(
        st.characters(codec=None) | st.sampled_from("<>&\"'`=/\x00\x1b\n\ud800\u202e"),
        min_size=1,
        max_size=12,
    ),
)

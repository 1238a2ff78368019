"""A verdict on a terminal: the answer first, in 80 columns, whatever it holds."""

from __future__ import annotations

import pytest
from hypothesis import given

from tests.report.samples import TEXTS, different, finding, hostile_report, verdict
from tracebridge.report import terminal
from tracebridge.validation import Uncompared, Verdict
from tracebridge.validation.scope import Scope


def told(one: Verdict) -> list[str]:
    return list(terminal.lines(one))


def test_a_clean_verdict_is_a_few_aligned_lines() -> None:
    assert told(verdict(losses={"time-in-milliseconds": 23})) == [
        "langfuse: CLEAN (http://127.0.0.1:3000)",
        "  compared   3 sessions, 23 spans",
        "             8 tool, 6 llm, 5 turn, 4 session",
        "  equal      23",
        "             23 of them up to the declared loss time-in-milliseconds",
    ]


def test_findings_are_counted_by_class_the_worst_first_and_then_shown_with_what_to_do() -> None:
    found = (
        finding("foreign"),
        finding("missing", journal="/t/session-ada/events.jsonl:7", command="tracebridge ship"),
    )
    lines = told(verdict(findings=found))
    assert lines[0] == "langfuse: FINDINGS (http://127.0.0.1:3000)"
    assert lines[4:] == [
        "  missing    1  Recorded in the journal, and not there.",
        "  foreign    1  Another service's span in one of these traces. No defect.",
        "  - missing: tool find_order of session ada",
        f"      trace {'a' * 32}, span {'b' * 16}",
        "      recorded: /t/session-ada/events.jsonl:7",
        "      to do: tracebridge ship",
        "  - foreign: tool find_order of session ada",
        f"      trace {'a' * 32}, span {'b' * 16}",
    ]


def test_of_long_values_the_part_is_shown_in_which_they_begin_to_differ() -> None:
    text = "the same words again and again, " * 1_000
    lines = told(verdict(findings=(different(f"{text}morning{text}", f"{text}evening{text}"),)))
    journal, backend = lines[-2:]
    assert "journal: …" in journal
    assert "morning" in journal
    assert "evening" in backend
    assert journal.endswith("… (64,009 characters)")
    assert max(map(len, lines)) <= terminal.WIDTH


def test_values_that_differ_only_in_the_order_of_their_keys_would_look_the_same() -> None:
    lines = told(verdict(findings=(different({"a": 1, "b": 2}, {"b": 3, "a": 1}),)))
    assert lines[-2:] == ['        journal: {"a":1,"b":2}', '        backend: {"a":1,"b":3}']


def test_what_is_left_out_is_counted() -> None:
    findings = tuple(finding() for _ in range(terminal.MOST_SHOWN + 5))
    uncompared = tuple(Uncompared(session_id=str(n), reason="open") for n in range(terminal.MOST_SHOWN + 1_000))
    lines = told(verdict(findings=findings, uncompared=uncompared))
    assert [line for line in lines if "more" in line] == [
        "  … and 5 more: --html and --json tell of them",
        "  … and 1,000 more not compared: --html and --json tell of them",
    ]


def test_the_scope_the_sample_the_policy_and_what_the_backend_computed_are_told() -> None:
    lines = "\n".join(
        told(
            verdict(
                scope=Scope(environment="staging", sample=0.5),
                drawn_from=6,
                policy={"sessions sampled out": 2},
                server_computed={"cost": 4},
            )
        )
    )
    assert "  scope      only the environment staging\n" in lines
    assert "  sample     50 % of the sessions, the same ones every time: 3 of 6." in lines
    assert "  policy     2 sessions sampled out\n" in lines
    assert "  computed   cost: 4 spans with a value of the backend's own" in lines


@given(TEXTS)
def test_no_content_can_reach_the_terminal_as_it_is(text: str) -> None:
    for line in told(hostile_report(text).sinks[0].verdict):
        line.encode("utf-8")
        assert not [one for one in line if ord(one) < 32 or ord(one) in range(127, 160)]


@pytest.mark.parametrize("width", [terminal.WIDTH])
def test_long_sentences_are_broken(width: int) -> None:
    uncompared = (Uncompared(session_id="ada", reason="this is a rather long reason " * 10),)
    assert max(map(len, told(verdict(uncompared=uncompared)))) <= width

"""What somebody reads first: it must be right, whatever the verdict is."""

from __future__ import annotations

import pytest

from tests.report.samples import finding, report, verdict
from tracebridge.report import Day, SinkReport, words
from tracebridge.validation import Uncompared
from tracebridge.validation.scope import Scope

OPEN = Uncompared(session_id="ada", reason="still open")
DAYS = (Day(date="2026-02-06", owed=1, compared=1, clean=1), Day(date="2026-02-09", owed=2, compared=2, clean=2))


def answer(**changes: object) -> str:
    return words.answer(SinkReport(verdict=verdict(**changes)))


def test_a_clean_verdict_says_what_is_there_from_when_to_when_and_up_to_what() -> None:
    told = SinkReport(verdict=verdict(losses={"time-in-milliseconds": 23, "media": 1}), days=DAYS)
    assert words.answer(told) == (
        "All 23 spans of 3 sessions recorded between 2026-02-06 and 2026-02-09 are in langfuse and equal, "
        "up to 2 declared losses."
    )
    assert answer() == "All 23 spans of 3 sessions are in langfuse and equal."


def test_the_days_of_everything_are_not_said_of_a_part() -> None:
    told = SinkReport(verdict=verdict(scope=Scope(session_id="ada")), days=DAYS)
    assert words.answer(told) == "All 23 spans of 3 sessions are in langfuse and equal."


def test_what_was_found_clean_before_is_told_apart() -> None:
    assert answer(known_clean=5) == (
        "All 23 spans of 3 sessions are in langfuse and equal; 5 sessions more were found clean before, and have not "
        "changed."
    )
    assert answer(sessions=0, expected=0, equal=0, known_clean=5) == (
        "Nothing is new to compare with langfuse; 5 sessions were found clean before, and have not changed."
    )


def test_a_sample_says_of_how_many_it_was_drawn() -> None:
    told = answer(scope=Scope(sample=0.05), drawn_from=60)
    assert told == "All 23 spans of 3 drawn of 60 sessions are in langfuse and equal."


def test_what_the_policy_left_out_is_not_told_as_being_there() -> None:
    assert answer(policy={"events narrowed": 12}) == (
        "All 23 spans of 3 sessions are in langfuse and equal, but for what its policy left out (12 events narrowed)."
    )


def test_findings_are_counted_by_what_they_mean_and_foreign_spans_are_none() -> None:
    found = (*[finding("missing")] * 3, finding("different"), finding("foreign"))
    assert answer(findings=found, equal=19, uncompared=(OPEN,)) == (
        "In langfuse, 3 spans are missing and 1 span differs; 19 of 23 spans are equal; "
        "1 session could not be compared."
    )
    assert answer(findings=(finding("foreign"),)) == "All 23 spans of 3 sessions are in langfuse and equal."


def test_what_was_not_compared_is_no_proof() -> None:
    assert answer(uncompared=(OPEN, Uncompared(session_id="", reason="gone"))) == (
        "With langfuse, 1 session and 1 other thing could not be compared; 23 of 23 spans in 3 sessions are equal."
    )
    assert answer(sessions=0, expected=0, equal=0, uncompared=(OPEN,)) == (
        "Nothing was compared with langfuse, so nothing is proved."
    )


@pytest.mark.parametrize(
    ("verdicts", "title"),
    [
        ([verdict()], "Nothing is lost: langfuse holds all that was recorded"),
        ([verdict(), verdict(sink="otel")], "Nothing is lost: langfuse and otel hold all that was recorded"),
        (
            [verdict(policy={"sessions sampled out": 1}), verdict(sink="otel")],
            "Nothing is lost but what the policy of langfuse leaves out",
        ),
        ([verdict(scope=Scope(sample=0.1))], "Nothing is lost in what was compared with langfuse"),
        ([verdict(uncompared=(OPEN,))], "Not proved yet: langfuse could not be compared in full"),
        (
            [verdict(uncompared=(OPEN,)), verdict(sink="otel", findings=(finding(),))],
            "Do not switch anything off: otel is not as recorded",
        ),
    ],
)
def test_the_title_is_the_answer_of_the_worst_sink(verdicts: list, title: str) -> None:
    assert words.title(report(*verdicts)) == title


def test_a_sample_says_what_it_proves_only_if_it_is_clean() -> None:
    drawn = {"scope": Scope(sample=0.05), "sessions": 300, "drawn_from": 6_000}
    assert words.sample(verdict(**drawn)) == (
        "5 % of the sessions, the same ones every time: 300 of 6,000. With 95% confidence, at most 58 sessions of "
        "them all are not as recorded"
    )
    assert "confidence" not in words.sample(verdict(**drawn, findings=(finding(),)))
    assert words.sample(verdict()) == ""


@pytest.mark.parametrize(
    ("endpoint", "shown"),
    [
        ("https://pk:sk@host/path", "https://host/path"),
        ("https://token@host", "https://host"),
        ("http://127.0.0.1:4318/a@b", "http://127.0.0.1:4318/a@b"),
    ],
)
def test_an_address_is_shown_without_credentials(endpoint: str, shown: str) -> None:
    assert words.without_credentials(endpoint) == shown

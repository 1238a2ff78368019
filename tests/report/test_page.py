"""The page: the answer first, every part that somebody who signs off needs, and no way in for what traces hold."""

from __future__ import annotations

import re
from html import unescape
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from hypothesis import given

from tests.report.samples import BEGAN_NS, HOSTILE, SECOND, TEXTS, different, finding, hostile_report, report, verdict
from tracebridge.delivery.evidence import Validation
from tracebridge.report import Day, DeclaredLoss, page
from tracebridge.report.findings import MOST_SHOWN
from tracebridge.validation import Uncompared
from tracebridge.validation.scope import Scope

VOID = {"meta", "hr"}
ALLOWED = {
    "html head meta title style body header main section footer h1 h2 h3 h4 h5 h6 p span div dl dt dd ul li table thead"
    " tbody tr th td code a mark article details summary svg rect i"
}
ELEMENTS = set(" ".join(ALLOWED).split())
ATTRIBUTES = {
    "lang charset http-equiv content name class scope href rel dir role aria-label viewbox preserveaspectratio x y"
    " width height"
}
NAMES = set(" ".join(ATTRIBUTES).split())


class Parsed(HTMLParser):
    """What a parser finds in a page: elements must be closed, and be among those that we write."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[int] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self.marks: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in ELEMENTS, tag
        assert {name for name, _ in attrs} <= NAMES, attrs
        self.links += [value or "" for name, value in attrs if name == "href"]
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.words.append(data)
        if self.open and self.open[-1] == "mark":
            self.marks.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(data)

    def unknown_decl(self, data: str) -> None:
        raise AssertionError(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_the_answer_comes_first_then_what_it_rests_on() -> None:
    told = report(
        verdict(losses={"media": 1}, findings=(finding(),), uncompared=(Uncompared(session_id="ben", reason="open"),)),
        losses=(DeclaredLoss(name="media", words="Images are kept by reference."),),
        policy=("include_thinking: false",),
        days=(Day(date="2026-02-06", owed=3, compared=2, clean=1),),
        validations=(
            Validation(
                id=1,
                began_ns=BEGAN_NS,
                ended_ns=BEGAN_NS + SECOND,
                scope='{"sample":0.05}',
                summary='{"exit_code":0,"sessions":3,"expected":23,"equal":23}',
            ),
        ),
    )
    text = Parsed(page.document(told)).text
    order = [
        "Do not switch anything off: langfuse is not as recorded",
        "In langfuse, 1 span is missing",
        "What was compared",
        "include_thinking: false",
        "Findings",
        "Missing: 1 span",
        "What was not compared, and why",
        "Coverage over time",
        "Of 3 owed sessions, 2 were compared",
        "Declared losses",
        "Images are kept by reference.",
        "Validations so far",
        "5 % of them clean, 3 sessions, 23 of 23 spans equal",
        "How this was made",
        "tracebridge validate --html report.html",
        "2026-11-27 13:02:08 UTC",
        "tracebridge 1.2.3",
        "Signature",
    ]
    place = 0
    for part in order:
        place = text.find(part, place) + 1
        assert place, part


def test_nothing_is_executed_or_loaded() -> None:
    text = page.document(report(verdict(findings=(finding(link="https://example.com/trace/1"),))))
    assert "content=\"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'\"" in unescape(
        text
    )
    assert text.index("Content-Security-Policy") < text.index("<style")
    assert not re.search(r"<script|<link|<img|<iframe|\burl\(|@import|\bsrc=|\bon\w+=", text)


def test_headings_are_in_order_and_the_language_is_named() -> None:
    text = page.document(hostile_report("x"))
    levels = Parsed(text).headings
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert '<html lang="en">' in text


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_content_is_only_ever_text(text: str) -> None:
    parsed = Parsed(page.document(hostile_report(text)))
    assert not [link for link in parsed.links if not link.startswith("https://example.com/")]


@given(TEXTS)
def test_any_content_is_only_ever_text(text: str) -> None:
    Parsed(page.document(hostile_report(text))).text.encode("utf-8")


@pytest.mark.parametrize(
    ("url", "is_link"),
    [
        ("https://host/trace/1", True),
        ("http://host/trace/1", True),
        ("javascript:alert(1)", False),
        ("data:text/html,x", False),
        ("//host/trace", False),
        ("http://[broken", False),
    ],
)
def test_only_pages_of_the_web_become_links(url: str, is_link: bool) -> None:
    parsed = Parsed(page.document(report(verdict(findings=(finding(link=url),)))))
    assert parsed.links == [url] * is_link
    assert url in parsed.text


def test_what_changed_is_marked_on_both_sides_and_long_texts_are_shortened() -> None:
    same = "nothing to see here, " * 10_000
    text = page.document(report(verdict(findings=(different(f"{same}old {same}", f"{same}new {same}"),))))
    assert Parsed(text).marks == ["old", "new"]
    assert "… 209,840 characters …" in text
    assert len(text) < 30_000


def test_values_of_two_kinds_do_not_look_the_same() -> None:
    assert Parsed(page.document(report(verdict(findings=(different("1", 1),))))).marks == ['"', '"']


def test_an_empty_value_is_said_to_be_empty() -> None:
    assert "(empty)" in Parsed(page.document(report(verdict(findings=(different("a", ""),))))).text


def test_a_hundred_thousand_findings_are_counted_and_a_few_of_them_told() -> None:
    text = page.document(report(verdict(findings=(finding(),) * 100_000)))
    assert "Missing: 100,000 spans" in text
    assert f"and {100_000 - MOST_SHOWN:,} more" in text
    assert len(text) < 100_000


def test_a_value_of_five_megabytes_on_each_side_makes_no_large_page() -> None:
    text = page.document(report(verdict(findings=(different("a b " * 1_250_000, "c d " * 1_250_000),))))
    assert len(text) < 40_000


def test_the_address_is_shown_without_credentials() -> None:
    text = page.document(report(verdict(endpoint="https://pk:secret@host")))
    assert "https://host" in text
    assert "secret" not in text


def test_years_of_days_are_drawn_as_months_and_their_figures_are_in_a_table() -> None:
    days = tuple(
        Day(date=f"{year}-{month:02}-{day:02}", owed=2, compared=1, clean=1)
        for year in (2025, 2026)
        for month in range(1, 13)
        for day in (1, 15)
    )
    every_day = page.document(report(verdict(), days=days))
    assert every_day.count("<rect") == 2 * len(days)
    months = page.document(
        report(
            verdict(),
            days=(*days, *(Day(date=f"2027-01-{day:02}", owed=1, compared=0, clean=0) for day in range(1, 29))),
        )
    )
    assert months.count("<rect") == 2 * 24 + 1
    assert "Sessions by month" in months
    assert "2027-01 28 0 0" in Parsed(months).text


def test_a_sample_says_what_it_proves() -> None:
    told = verdict(scope=Scope(sample=0.05), sessions=300, drawn_from=6_000)
    assert "With 95% confidence, at most 58 sessions of them all" in Parsed(page.document(report(told))).text

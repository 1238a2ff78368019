"""No field of an event or of a span is without a place in LangFuse, and the page that says where is true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.fields import ANY, CUSTOM, DATA, TOP_LEVEL
from tests.langfuse.fields import Row, found, table
from tracebridge.assembler.homes import HOMES, REPEATS
from tracebridge.event import Event
from tracebridge.span import Span
from tracebridge_langfuse import names
from tracebridge_langfuse.losses import LOSSES

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "langfuse.md").read_text(encoding="utf-8")

OF_TRACEBRIDGE = {"kind", "extent", "links", "fingerprint"}
"""Fields of a span that no single field of an event gives."""


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return found()


def test_the_table_of_the_page_is_what_the_code_does(rows: list[Row]) -> None:
    assert table(rows) in PAGE, "print it with `python -m tests.langfuse.fields` and put it into docs/langfuse.md"


def test_every_entry_of_every_event_that_has_a_home_has_a_row(rows: list[Row]) -> None:
    known = {(event_type, home.key) for event_type, homes in HOMES.items() for home in homes}
    known |= {(event_type, key) for event_type, repeats in REPEATS.items() for key, _ in repeats}
    assert known <= {(row.event, row.field) for row in rows}


def test_every_field_of_a_line_has_a_row(rows: list[Row]) -> None:
    told = {row.field for row in rows if row.event == "every event"}
    assert told == {*TOP_LEVEL}
    # `data` is told entry by entry, `line` is the line itself, and its size is no part of it
    assert set(Event.__struct_fields__) - {"time_ns", "event_type", "data", "line", "size"} <= told


def test_every_entry_that_the_guide_names_has_a_row(rows: list[Row]) -> None:
    told = {(row.event, row.field) for row in rows}
    guide = (DOCS / "agent_trace.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\| `([a-z.]+)` \| [^|]+ \| ([^|]+) \|$", guide, re.MULTILINE)
    assert len(lines) == len(DATA) - 1
    named = {(event_type, key) for event_type, keys in lines for key in re.findall(r"`(\w+)`", keys)}
    assert named - told == set()


def test_every_field_of_a_span_has_a_row(rows: list[Row]) -> None:
    assert {*Span.__struct_fields__} == {field for row in rows for field in row.span} | OF_TRACEBRIDGE


def test_whatever_else_an_event_holds_has_a_row(rows: list[Row]) -> None:
    assert {row.event for row in rows if row.field == ANY} == {"every event", CUSTOM, *HOMES}


def test_every_field_is_sent_and_shown_and_reads_back_up_to_a_declared_loss(rows: list[Row]) -> None:
    declared = {"equal", *(f"`{loss.name}`" for loss in LOSSES)}
    for row in rows:
        assert row.attributes, row
        assert row.shown, row
        assert row.back in declared, row


def test_the_page_names_the_type_of_every_kind_of_span() -> None:
    kinds = dict(re.findall(r"^\| `(\w+)` \| `(\w+)` \| [^|]+ \|$", PAGE, re.MULTILINE))
    assert kinds == names.TYPES


def test_the_page_explains_every_loss() -> None:
    assert re.findall(r"^\* `([a-z-]+)`: ", PAGE, re.MULTILINE) == [loss.name for loss in LOSSES]

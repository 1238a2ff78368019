"""No field of an event or of a span is without a place in OTLP, and the page that says where is true."""

from __future__ import annotations

from pathlib import Path

from tests.fields import ANY, CUSTOM
from tests.otel.fields import rows, table
from tracebridge.assembler.homes import HOMES, REPEATS
from tracebridge.span import Span

PAGE = Path(__file__).resolve().parents[2] / "docs" / "opentelemetry.md"
OF_TRACEBRIDGE = {"kind", "extent", "links", "fingerprint"}
"""Fields of a span that no single field of an event gives."""


def test_the_table_of_the_page_is_what_the_code_does() -> None:
    told = "print it with `python -m tests.otel.fields` and put it into docs/opentelemetry.md"
    assert table(rows()) in PAGE.read_text("utf-8"), told


def test_every_field_goes_somewhere() -> None:
    assert [row for row in rows() if not row.places] == []


def test_every_entry_of_every_event_and_every_field_of_a_span_has_a_row() -> None:
    found = list(rows())
    known = {(event_type, home.key) for event_type, homes in HOMES.items() for home in homes}
    known |= {(event_type, key) for event_type, repeats in REPEATS.items() for key, _ in repeats}
    assert known <= {(row.event, row.field) for row in found}
    assert {*Span.__struct_fields__} == {field for row in found for field in row.span} | OF_TRACEBRIDGE
    assert {row.event for row in found if row.field == ANY} == {"every event", CUSTOM, *HOMES}

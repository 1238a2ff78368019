"""W3C Trace Context: what is a header, what is none, and what of it is passed on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from tracebridge.tracecontext import TraceContext, from_headers

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
HEX = st.text("0123456789abcdef")
IDS = {
    size: st.text("0123456789abcdef", min_size=size, max_size=size).filter(lambda s: s.strip("0")) for size in (16, 32)
}
CONTEXTS = st.builds(TraceContext, trace_id=IDS[32], span_id=IDS[16], is_sampled=st.booleans(), is_random=st.booleans())


@given(CONTEXTS)
def test_what_is_written_reads_back(context: TraceContext) -> None:
    assert from_headers(context.traceparent) == context


@given(CONTEXTS)
def test_opentelemetry_reads_what_is_written(context: TraceContext) -> None:
    carrier = {"traceparent": context.traceparent, "tracestate": "a=1"}
    read = get_current_span(TraceContextTextMapPropagator().extract(carrier)).get_span_context()
    assert f"{read.trace_id:032x}" == context.trace_id
    assert f"{read.span_id:016x}" == context.span_id
    assert read.trace_flags == context.flags


@pytest.mark.parametrize(
    "header",
    [
        f"00-{TRACE}-{SPAN}-01",
        f" 00-{TRACE}-{SPAN}-01 ",
        f"00-{TRACE}-{SPAN}-fd",
        f"cc-{TRACE}-{SPAN}-01",
        f"cc-{TRACE}-{SPAN}-01-what-a-later-version-adds",
    ],
)
def test_a_header_of_this_version_or_of_a_later_one_is_continued(header: str) -> None:
    assert from_headers(header) == TraceContext(trace_id=TRACE, span_id=SPAN)


@pytest.mark.parametrize(
    ("came", "goes_on"), [("00", "00"), ("01", "01"), ("02", "02"), ("03", "03"), ("fc", "00"), ("ff", "03")]
)
def test_the_flags_that_the_standard_knows_are_passed_on_and_no_others(came: str, goes_on: str) -> None:
    read = from_headers(f"00-{TRACE}-{SPAN}-{came}")
    assert read is not None
    assert (read.is_sampled, read.is_random) == (came in ("01", "03", "ff"), came in ("02", "03", "ff"))
    assert read.traceparent == f"00-{TRACE}-{SPAN}-{goes_on}"


@pytest.mark.parametrize(
    "header",
    [
        *(
            "",
            "00",
            None,
            7,
            b"00",
            f"00-{TRACE}-{SPAN}",
            f"00-{TRACE}-{SPAN}-1",
            f"00-{TRACE}-{SPAN}-01-",
            f"0-{TRACE}",
        ),
        f"00-{TRACE}-{SPAN}-01-more",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE[:-1]}g-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n00-{TRACE}-{SPAN}-01",
    ],
)
def test_anything_else_begins_a_trace_anew(header: object) -> None:
    assert from_headers(header, "a=1") is None


@pytest.mark.parametrize(
    ("tracestate", "kept"),
    [
        ("vendor=opaque", "vendor=opaque"),
        ("a=1, b=2 ,,c@d=x y", "a=1,b=2,c@d=x y"),
        ("", ""),
        (None, ""),
        ("a=1,a=2", ""),
        ("A=1", ""),
        ("a=b=c", ""),
        ("a=ü", ""),
        ("a", ""),
        (",".join(f"k{number}=v" for number in range(33)), ""),
    ],
)
def test_a_tracestate_that_breaks_the_rules_is_left_out_and_the_trace_goes_on(tracestate: object, kept: str) -> None:
    read = from_headers(f"00-{TRACE}-{SPAN}-01", tracestate)
    assert read == TraceContext(trace_id=TRACE, span_id=SPAN, tracestate=kept)


@given(st.text(), st.text())
def test_no_header_does_any_harm(traceparent: str, tracestate: str) -> None:
    from_headers(traceparent, tracestate)
    read = from_headers(f"00-{TRACE}-{SPAN}-01", tracestate)
    assert read is not None
    assert from_headers(read.traceparent, read.tracestate) == read, "what is passed on is taken whole"

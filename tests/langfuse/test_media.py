"""A server that takes media out of what it is sent leaves what the loss of that name says, and nothing else."""

from __future__ import annotations

import base64
import copy
import json
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from langfuse.media import LangfuseMedia

from tests.langfuse.test_mapping import LLM, span
from tests.langfuse.test_reader import spans as in_one_trace
from tracebridge.devserver.otlp import json_text
from tracebridge.sink import Query
from tracebridge.span import Edge, Span
from tracebridge.testing.strategies import spans
from tracebridge.validation.comparison import compare
from tracebridge_langfuse.losses import LOSSES
from tracebridge_langfuse.mapping import to_wire
from tracebridge_langfuse.media import by_reference, reference, shows_reference
from tracebridge_langfuse.reader import LangfuseReader
from tracebridge_langfuse.sink import LangfuseSink
from tracebridge_otlp.encoding import encode_span

PIXEL = base64.b64encode(b"\x89PNG\r\n\x1a\n and so on \xff\xfe").decode()
URI = f"data:image/png;base64,{PIXEL}"
ANTHROPIC = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
GEMINI = {"inline_data": {"mime_type": "image/png", "data": PIXEL}}

MESSAGES: dict[str, Any] = {
    "a data URI in a message": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": URI}}]}],
    "a data URI in a text": f"look: {URI}, and at {URI}",
    "Anthropic's shape, and numbers": [{"role": "user", "content": [ANTHROPIC], "score": 1.0, "id": 2**60 + 1}],
    "Gemini's shape": [{"parts": [GEMINI, {"text": "x"}]}],
    "a text that is JSON": json.dumps([ANTHROPIC, {"score": 1.0}]),
    "a file": [{"type": "file", "mediaType": "application/pdf", "data": PIXEL}],
}


def taken_out(text: str) -> str:
    """What the server stores of one of its fields, by the SDK's own references."""
    text = re.sub(rf"data:image/png;base64,{re.escape(PIXEL)}", reference_to(PIXEL), text)
    if not text.startswith(("{", "[")):
        return text
    value = json.loads(text)
    return json_text(value) if replaced(value) else text


def replaced(value: Any) -> bool:
    """Put references into the objects that hold media; whether there were any."""
    if isinstance(value, list):
        return sum(map(replaced, value)) > 0
    if not isinstance(value, dict):
        return False
    if value.get("data") == PIXEL:
        kind = value.get("media_type") or value.get("mime_type") or value["mediaType"]
        value["data"] = reference_to(PIXEL, kind, "bytes")
        return True
    return sum(map(replaced, value.values())) > 0


def reference_to(content: str, kind: str = "image/png", source: str = "base64_data_uri") -> str:
    media = LangfuseMedia(content_bytes=base64.b64decode(content), content_type=kind)  # type: ignore[arg-type]
    return str(media._reference_string).replace("source=bytes", f"source={source}")


def stored_by_reference(sink: LangfuseSink, reader: LangfuseReader, sent: Span) -> Span:
    wire = to_wire(sent)
    attributes = {
        name: taken_out(value) if name.startswith("langfuse.observation.") and isinstance(value, str) else value
        for name, value in wire.attributes.items()
    }
    assert attributes != wire.attributes
    sink.deliver(sink.join([encode_span(msgspec.structs.replace(wire, attributes=attributes))]))
    (found,) = reader.read(Query(trace_ids=(sent.trace_id,)))
    return found


@pytest.mark.parametrize("messages", MESSAGES.values(), ids=MESSAGES.keys())
def test_a_span_whose_media_are_stored_apart_is_the_same_but_for_the_loss(
    sink: LangfuseSink, reader: LangfuseReader, messages: Any
) -> None:
    edge = Edge(ordinal=1, timestamp="t", fields={"shown": URI, "kept": None, "url": [URI]})
    (sent,) = in_one_trace(
        {
            **LLM,
            "input": messages,
            "output": {"echo": messages},
            "tool_calls": [{"n": 1.0}],
            "metadata": {"avatar": URI},
            "opened": edge,
        }
    )
    found = stored_by_reference(sink, reader, copy.deepcopy(sent))
    assert found.input != sent.input
    assert PIXEL not in str(found.input)
    comparison = compare([sent], [found], LOSSES)
    assert comparison.findings == ()
    assert comparison.losses["media-by-reference"] == 1
    assert (shows_reference(sent), shows_reference(found)) == (False, True)


def test_other_media_are_a_difference(sink: LangfuseSink, reader: LangfuseReader) -> None:
    (sent,) = in_one_trace({"input": f"look: {URI}"})
    found = stored_by_reference(sink, reader, sent)
    other = base64.b64encode(b"another image").decode()
    (finding,) = compare(
        [msgspec.structs.replace(sent, input=f"look: data:image/png;base64,{other}")], [found], LOSSES
    ).findings
    assert [difference.field for difference in finding.differences] == ["input"]


def test_a_number_without_media_around_it_is_not_lost() -> None:
    sent = span(input={"score": 1.0})
    assert by_reference(sent) == sent
    (finding,) = compare([sent], [span(input={"score": 1})], LOSSES).findings
    assert finding.kind == "different"


def test_media_are_found_wherever_a_text_is_in_the_metadata() -> None:
    found = by_reference(
        span(run_id=URI, metadata={URI: 1}, opened=Edge(ordinal=1, timestamp="t", extra={"host": URI}))
    )
    assert PIXEL not in repr(found)
    assert found.start_ns == span().start_ns


def test_a_metadata_key_with_media_is_not_shown() -> None:
    names = to_wire(span(metadata={URI: 1})).attributes
    assert [name for name in names if URI in name] == []


def test_a_data_uri_in_an_object_keeps_its_own_type() -> None:
    file = {"type": "file", "mediaType": "image/jpeg", "data": URI}
    assert by_reference(span(input=file)).input == {**file, "data": reference_to(PIXEL)}


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n\xff\xfe", b"it's", b"\"both' \\ of them", b"\t~ "])
def test_bytes_that_were_written_as_python_shows_them_are_media_too(content: bytes) -> None:
    taken_out_of_it = reference_to(base64.b64encode(content).decode())
    found = by_reference(span(input={"inline_data": {"mime_type": "image/png", "data": repr(content)}}))
    assert found.input == {"inline_data": {"mime_type": "image/png", "data": taken_out_of_it}}


@pytest.mark.parametrize("text", ["b''", "b'", "b'a\"", "b'a'b'", "b'\\x0'", "b'\\'", "b'\u00fc'", "'a'", "b'a' "])
def test_what_only_looks_like_bytes_stays(text: str) -> None:
    sent = span(input={"inline_data": {"mime_type": "image/png", "data": text}})
    assert by_reference(sent) == sent


def test_a_text_that_the_server_writes_anew_for_a_data_uri_in_it_is_the_same() -> None:
    file = {"inline_data": {"mime_type": "image/png", "data": "not base64"}}  # for such keys the server reads the text
    sent = span(input=json.dumps([f"\u00e4{URI}", file, 1.0]))  # an escape before the URI hides it until then
    stored = span(input=json_text([f"\u00e4{reference_to(PIXEL)}", file, 1]))
    comparison = compare([sent], [stored], LOSSES)
    assert comparison.findings == ()
    assert comparison.losses == {"media-by-reference": 1}


def test_references_are_those_of_langfuse() -> None:
    assert reference("image/png", base64.b64decode(PIXEL)) == reference_to(PIXEL)


@pytest.mark.parametrize(
    "text", ["data:image/png;base64,A", "data:;base64,AAAA", "data:image/png,AAAA", ";base64,AAAA"]
)
def test_what_is_no_media_stays(text: str) -> None:
    assert by_reference(span(input=text)).input == text


@given(spans())
def test_the_loss_happens_once(any_span: Span) -> None:
    once = by_reference(any_span)
    assert by_reference(once) == once

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from tracebridge.testing.strategies import texts
from tracebridge_otlp.attributes import encode_attributes

RESOURCE_ATTRIBUTE = b"\x0a"
LENGTHS_AT_THE_EDGE_OF_A_PREFIX = (0, 1, 63, 64, 65, 100, 127, 128, 129, 16_383, 16_384, 2_097_152)

NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats() | st.sampled_from((0, 1, -1, 0.0, -0.0, 1.0))
SCALARS = texts(max_size=200) | st.booleans() | NUMBERS
ATTRIBUTES = st.dictionaries(texts(max_size=200), SCALARS | st.lists(SCALARS, max_size=4), max_size=8)


def official_value(value: Any) -> AnyValue:
    """What protobuf's own classes make of a value."""
    if isinstance(value, list):
        return AnyValue(array_value=ArrayValue(values=[official_value(entry) for entry in value]))
    if isinstance(value, str):
        return AnyValue(string_value=value)
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    return AnyValue(int_value=value) if isinstance(value, int) else AnyValue(double_value=value)


def official(attributes: dict[str, Any]) -> Resource:
    return Resource(attributes=[KeyValue(key=key, value=official_value(value)) for key, value in attributes.items()])


def written(attributes: dict[str, Any]) -> Resource:
    return Resource.FromString(b"".join(encode_attributes(RESOURCE_ATTRIBUTE, attributes)))


def exact(message: Resource) -> bytes:
    """A form in which NaN equals itself."""
    return message.SerializeToString(deterministic=True)


@given(ATTRIBUTES)
@example({"a": 1, "b": True, "c": 1.0, "d": "1"})
def test_attributes_are_what_the_official_classes_make_of_them(attributes: dict[str, Any]) -> None:
    assert exact(written(attributes)) == exact(official(attributes))


@pytest.mark.parametrize("length", LENGTHS_AT_THE_EDGE_OF_A_PREFIX)
@pytest.mark.parametrize("character", ["x", "é", "😀"])
def test_a_text_of_any_length_is_framed_as_the_official_classes_frame_it(length: int, character: str) -> None:
    text = character * length
    assert exact(written({"k": text, "list": [text]})) == exact(official({"k": text, "list": [text]}))


def test_a_subclass_of_text_is_a_text() -> None:
    class Name(str):
        __slots__ = ()

    assert exact(written({Name("k"): Name("v")})) == exact(official({"k": "v"}))

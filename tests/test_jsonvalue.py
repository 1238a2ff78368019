from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import functools
import json
import os
import pathlib
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, ClassVar
from unittest.mock import MagicMock

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracebridge import jsonvalue


class Text(str):
    __slots__ = ()


class Number(int):
    pass


class Real(float):
    pass


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: Any
    y: Any = 2


@dataclasses.dataclass
class Tuned:
    x: int = 1
    limits: ClassVar[dict[str, int]] = {"most": 5}
    start: dataclasses.InitVar[int] = 3


class Record(msgspec.Struct):
    x: int


@dataclasses.dataclass
class Refused(Exception):
    code: int


@dataclasses.dataclass
class Shown(Mapping[str, int]):
    code: int

    def __getitem__(self, key: str) -> int:
        return self.code

    def __iter__(self) -> Iterator[str]:
        return iter(["another"])

    def __len__(self) -> int:
        return 1


@dataclasses.dataclass
class Located(os.PathLike[str]):
    code: int

    def __fspath__(self) -> str:
        return "/a"


class Modelled:
    def model_dump(self) -> dict[str, Any]:
        return {"a": 1, "when": datetime.date(2026, 2, 6)}


class Array:
    def tolist(self) -> list[float]:
        return [1.0, 2.0]


class Moment(datetime.datetime):
    """As pandas' are: more exact than the type that it is derived from."""

    def isoformat(self, *args: Any, **kwargs: Any) -> str:
        return super().isoformat(*args, **kwargs) + ".000000001"


class Span(datetime.timedelta):
    pass


class Amount(decimal.Decimal):
    pass


class Bytes(bytes):
    __slots__ = ()


class Numbered(uuid.UUID):
    pass


class Scalar:
    def tolist(self) -> datetime.datetime:
        return datetime.datetime(2026, 2, 6, 22, 10)


class UnrepresentableKey:
    def __str__(self) -> str:
        raise ValueError("no")


class Unrepresentable:
    def __repr__(self) -> str:
        raise ValueError("no")


class BrokenModel:
    def model_dump(self) -> dict[str, Any]:
        raise RuntimeError("no")


def numbers() -> Iterator[int]:
    yield 1


def itself() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["self"] = value
    return value


FORMS = [
    pytest.param(None, None, id="None"),
    pytest.param(float("nan"), None, id="NaN"),
    pytest.param([float("inf"), float("-inf")], [None, None], id="infinities"),
    pytest.param(b"ab", "YWI=", id="bytes"),
    pytest.param(bytearray(b"ab"), "YWI=", id="bytearray"),
    pytest.param(memoryview(b"ab"), "YWI=", id="memoryview"),
    pytest.param(datetime.datetime(2026, 2, 6, 22, 10, tzinfo=datetime.UTC), "2026-02-06T22:10:00Z", id="datetime"),
    pytest.param(datetime.date(2026, 2, 6), "2026-02-06", id="date"),
    pytest.param(decimal.Decimal("1.10"), "1.10", id="Decimal"),
    pytest.param(uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001", id="UUID"),
    pytest.param(pathlib.PurePosixPath("/a"), "/a", id="path"),
    pytest.param(Colour.RED, "red", id="Enum"),
    pytest.param({1}, [1], id="set"),
    pytest.param(frozenset({1}), [1], id="frozenset"),
    pytest.param((1, (2,)), [1, [2]], id="tuple"),
    pytest.param(collections.deque([1]), [1], id="deque"),
    pytest.param(Point(1), {"x": 1, "y": 2}, id="dataclass"),
    pytest.param(Record(1), {"x": 1}, id="Struct"),
    pytest.param(Modelled(), {"a": 1, "when": "2026-02-06"}, id="pydantic-like"),
    pytest.param(MappingProxyType({"a": 1}), {"a": 1}, id="Mapping"),
    pytest.param(Array(), [1.0, 2.0], id="numpy-like"),
    pytest.param(ValueError("bad"), {"type": "ValueError", "message": "bad"}, id="exception"),
    pytest.param(Text("a"), "a", id="subclass of str"),
    pytest.param(Number(3), 3, id="subclass of int"),
    pytest.param(Real(1.5), 1.5, id="subclass of float"),
    pytest.param({Text("a"): Text("b")}, {"a": "b"}, id="subclass of str as key"),
    pytest.param({1: "a", 1.5: "b"}, {"1": "a", "1.5": "b"}, id="numbers as keys"),
    pytest.param(
        {None: 1, True: 2, False: 3, (1, 2): 4},
        {"null": 1, "true": 2, "false": 3, "(1, 2)": 4},
        id="odd keys",
    ),
    pytest.param({b"a": 1, Colour.RED: 2, None: 3}, {"YQ==": 1, "red": 2, "null": 3}, id="keys with a text"),
    pytest.param("\ud800é", "\\ud800é", id="lone surrogate"),
    pytest.param({"\ud800": ["\udfff"]}, {"\\ud800": ["\\udfff"]}, id="lone surrogates inside"),
    pytest.param(2**200, 2**200, id="large int"),
    pytest.param(-(16**5000), hex(-(16**5000)), id="int of too many digits"),
    pytest.param(itself(), {"self": "<cycle: dict>"}, id="cycle"),
    pytest.param(Unrepresentable(), "<Unrepresentable: ValueError when it was recorded>", id="repr that raises"),
    pytest.param(BrokenModel(), "<BrokenModel: RuntimeError when it was recorded>", id="model that raises"),
    pytest.param(Moment(2026, 2, 6), "2026-02-06T00:00:00.000000001", id="subclass of datetime"),
    pytest.param(Span(seconds=1.5), "PT1.5S", id="subclass of timedelta"),
    pytest.param(Amount("1.10"), "1.10", id="subclass of Decimal"),
    pytest.param(Bytes(b"ab"), "YWI=", id="subclass of bytes"),
    pytest.param(Numbered(int=1), "00000000-0000-0000-0000-000000000001", id="subclass of UUID"),
    pytest.param(memoryview(b"a-b-")[::2], "YWI=", id="memoryview with gaps"),
    pytest.param(Scalar(), "2026-02-06T22:10:00", id="numpy-like time"),
    pytest.param({Span(seconds=1): 1, "a": 2}, {"PT1S": 1, "a": 2}, id="subclass of timedelta as key"),
    pytest.param(
        {UnrepresentableKey(): 1, "a": 2},
        {"<UnrepresentableKey: ValueError when it was recorded>": 1, "a": 2},
        id="key whose text raises",
    ),
    pytest.param(Unrepresentable, repr(Unrepresentable), id="class"),
    pytest.param(len, "<built-in function len>", id="function"),
    pytest.param(range(3), "range(0, 3)", id="range"),
]


@pytest.mark.parametrize(("value", "form"), FORMS)
def test_every_value_has_its_documented_form_on_the_fast_and_on_the_slow_path(value: Any, form: Any) -> None:
    assert json.loads(jsonvalue.encode(value)) == form
    assert jsonvalue.plain(value) == form
    # a lone surrogate beside it sends everything down the slow path
    assert json.loads(jsonvalue.encode({"value": value, "slow": "\ud800"}))["value"] == form


_EMPTIES = """
from tracebridge import jsonvalue

class Empties:
    def __repr__(self):
        messages.clear()
        return "emptied"

for _ in range(100):
    messages = []
    messages += [Empties() if number == 3 else [f"{number}" * 50] for number in range(400)]
    line = jsonvalue.encode(messages)
print(len(jsonvalue.decode(line)))
"""


def test_a_list_that_is_emptied_while_it_is_encoded_does_not_end_the_process() -> None:
    # as by another thread, which may run whenever Python code does: here that of a `__repr__`
    done = subprocess.run([sys.executable, "-c", _EMPTIES], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout.strip()) == (0, "400"), done.stderr


def test_a_generator_is_not_consumed() -> None:
    generator = numbers()
    assert b"generator object numbers" in jsonvalue.encode([generator])
    assert list(generator) == [1]


def test_an_object_that_answers_to_every_name_is_recorded_as_a_text() -> None:
    assert type(json.loads(jsonvalue.encode(MagicMock()))) is str


def test_an_object_in_two_places_is_no_cycle() -> None:
    twice = {"a": 1, "\ud800": 2}
    assert jsonvalue.decode(jsonvalue.encode([twice, twice])) == [{"a": 1, "\\ud800": 2}] * 2


@pytest.mark.parametrize("depth", [129, 300, 900, 1000, 5000])
def test_what_is_nested_too_deep_is_cut_at_the_documented_depth_and_can_be_read_again(depth: int) -> None:
    value: Any = "bottom"
    for _ in range(depth):
        value = {"a": value}
    line = b'{"timestamp":"","data":%b}\n' % jsonvalue.encode(value)
    read = jsonvalue.decode(line)["data"]
    for _ in range(jsonvalue.MAX_DEPTH):
        read = read["a"]
    assert read == "<too deep: dict>"


def test_what_is_not_too_deep_is_kept() -> None:
    value: Any = "bottom"
    for _ in range(jsonvalue.MAX_DEPTH):
        value = [value]
    assert jsonvalue.decode(jsonvalue.encode(value)) == value == jsonvalue.plain(value)


def test_a_later_change_changes_nothing() -> None:
    messages = [{"role": "user"}]
    encoded = jsonvalue.encode(messages)
    messages.clear()
    assert json.loads(encoded) == [{"role": "user"}]


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda parts: st.lists(parts, max_size=4) | st.dictionaries(st.text(), parts, max_size=4),
    max_leaves=12,
)


@given(JSON_VALUES)
def test_json_values_come_back_as_they_were(value: Any) -> None:
    assert jsonvalue.decode(jsonvalue.encode(value)) == value
    assert jsonvalue.plain(value) == value


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(min_value=-(2**80), max_value=2**80)
    | st.floats()
    | st.text(st.characters(codec=None))
    | st.binary()
    | st.datetimes()
    | st.decimals()
    | st.builds(Unrepresentable)
    | st.sampled_from([object, Colour.RED, Point(1), ValueError("x")]),
    lambda parts: (
        st.lists(parts, max_size=3)
        | st.tuples(parts, parts)
        | st.dictionaries(
            st.none() | st.booleans() | st.integers() | st.binary() | st.text(st.characters(codec=None)),
            parts,
            max_size=3,
        )
    ),
    max_leaves=10,
)


@given(ANYTHING)
def test_any_value_is_encoded_so_that_both_decoders_can_read_it(value: Any) -> None:
    encoded = jsonvalue.encode(value)
    assert msgspec.json.decode(encoded) == json.loads(encoded)
    encoded.decode("utf-8")


@pytest.mark.parametrize(
    ("line", "value"),
    [
        (b'{"a":NaN,"b":-Infinity,"c":Infinity}', {"a": None, "b": None, "c": None}),
        (b"[1e400,-1e400]", [None, None]),
        (b'{"\\udfff":"\\ud800x"}', {"\\udfff": "\\ud800x"}),
        (b'"\\ud83d\\ude00"', "😀"),
        (b"123456789012345678901234567890", 123456789012345678901234567890),
        (b" [1] \n", [1]),
    ],
)
def test_what_old_writers_emit_is_read(line: bytes, value: Any) -> None:
    assert jsonvalue.decode(line) == value


@pytest.mark.parametrize("line", [b"", b"{", b'"\xff"', b"[" * 5000, b"[" * 200_000 + b"]" * 200_000, b"{} {}"])
def test_what_no_decoder_can_read_is_a_value_error(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        jsonvalue.decode(line)


@given(JSON_VALUES, st.integers(min_value=0, max_value=30))
def test_no_longer_string_than_the_bytes_let_expect(value: Any, limit: int) -> None:
    def longest(part: Any) -> int:
        if isinstance(part, str):
            return len(part)
        if isinstance(part, dict):
            return max(map(longest, [*part, *part.values()]), default=0)
        return max(map(longest, part), default=0) if isinstance(part, list) else 0

    if longest(value) > limit:
        assert jsonvalue.may_hold_longer(jsonvalue.encode(value), limit)


def test_short_strings_are_recognised_in_a_long_line() -> None:
    value = {"messages": [{"role": "user", "content": 'say "hi" \\ ' * 50}] * 100}
    assert not jsonvalue.may_hold_longer(jsonvalue.encode(value), 1000)


@pytest.mark.parametrize(
    ("value", "form"),
    [
        ("a", "a"),
        (5, "5"),
        (None, "None"),
        ("\ud800", "\\ud800"),
        (Text("a"), "a"),
        (Unrepresentable(), "<Unrepresentable: ValueError when it was recorded>"),
    ],
)
def test_text_never_raises(value: Any, form: str) -> None:
    assert jsonvalue.text(value) == form
    assert type(jsonvalue.text(value)) is str


def test_a_dataclass_has_the_same_fields_beside_a_value_that_json_has_no_form_for() -> None:
    assert json.loads(jsonvalue.encode(Tuned())) == {"x": 1}
    assert json.loads(jsonvalue.encode([Tuned(), 1j])) == [{"x": 1}, "1j"]


def test_an_attrs_object_has_the_same_attributes_beside_a_value_that_json_has_no_form_for() -> None:
    attrs = pytest.importorskip("attrs")
    slots = attrs.make_class("Slots", {"shown": attrs.field(default=1), "_key": attrs.field(default="k")})()
    computed = functools.cached_property(lambda _: 2)
    computed.__set_name__(object, "late")
    bases = {"class_body": {"late": computed}, "slots": True}
    lazy = attrs.make_class("Lazy", {"shown": attrs.field(default=1), "_key": attrs.field(default="k")}, **bases)()
    open_ = attrs.make_class("Open", {"shown": attrs.field(default=1)}, slots=False)()
    open_.more, open_._more = 2, 3
    for value, form in ((slots, {"shown": 1}), (lazy, {"shown": 1}), (open_, {"shown": 1, "more": 2})):
        assert json.loads(jsonvalue.encode(value)) == form
        assert json.loads(jsonvalue.encode([value, 1j])) == [form, "1j"]


def test_a_member_of_an_enum_with_attributes_is_its_value_beside_a_value_that_json_has_no_form_for() -> None:
    attrs = pytest.importorskip("attrs")
    with_cost = attrs.make_class("WithCost", {"cost": attrs.field()}, slots=False)
    Plan: Any = enum.Enum("Plan", {"BASIC": 1}, type=with_cost)
    value = jsonvalue.encode(Plan.BASIC.value)  # which some versions of Python make an object of that type
    assert (jsonvalue.encode(Plan.BASIC), jsonvalue.encode([Plan.BASIC, 1j])) == (value, b'[%b,"1j"]' % value)


@pytest.mark.parametrize(
    ("options", "form"),
    [
        ({"rename": "camel"}, {"myCode": 1, "other": 2}),
        ({"tag": "t"}, {"type": "t", "my_code": 1, "other": 2}),
        ({"omit_defaults": True}, {"my_code": 1}),
        ({"array_like": True}, [1, 2]),
    ],
    ids=["names", "tag", "defaults", "array"],
)
def test_a_struct_has_the_form_that_its_class_declares_beside_a_value_that_json_has_no_form_for(
    options: dict[str, Any], form: Any
) -> None:
    value = msgspec.defstruct("Declared", [("my_code", int), ("other", int, 2)], **options)(my_code=1)
    assert json.loads(jsonvalue.encode(value)) == form
    assert json.loads(jsonvalue.encode([value, 1j])) == [form, "1j"]
    assert json.loads(jsonvalue.encode({"inside": [value, 1j], "lone": "\ud800"}))["inside"] == [form, "1j"]


def test_a_struct_that_holds_what_json_has_no_form_for_keeps_its_own_form() -> None:
    value: Any = msgspec.defstruct("Declared", [("my_code", Any)], rename="camel")
    assert json.loads(jsonvalue.encode(value([value(1j), "\ud800", float("nan"), {1: 2}]))) == {
        "myCode": [{"myCode": "1j"}, "\\ud800", None, {"1": 2}]
    }
    round_ = value(None)
    round_.my_code = [round_]
    assert json.loads(jsonvalue.encode(round_)) == {"my_code": ["<cycle: Declared>"]}


@pytest.mark.parametrize("value", [Refused(1), Shown(1), Located(1)], ids=["exception", "Mapping", "path"])
def test_a_dataclass_that_is_something_else_as_well_is_an_object_of_its_fields_on_both_paths(value: Any) -> None:
    assert json.loads(jsonvalue.encode(value)) == {"code": 1}
    assert json.loads(jsonvalue.encode([value, 1j])) == [{"code": 1}, "1j"]

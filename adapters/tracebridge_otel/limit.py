"""Spans for a backend that takes only so many bytes of an attribute's value, as Tempo does. Pure.

Such a backend cuts what is longer without a word, and what it leaves of JSON cannot be read. So nothing longer is sent.
Content is cut here, with a mark, and stays what it was: messages stay messages. All else is kept whole, in the
remainder, which has as many attributes as it needs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from tracebridge.event import Json
from tracebridge.span import Span, SpanKind
from tracebridge_otel import names
from tracebridge_otel.call import write_request
from tracebridge_otel.content import CARRIED, write_content
from tracebridge_otel.remainder import Writing, remainder_attributes, remainder_in
from tracebridge_otlp.protobuf import utf8
from tracebridge_otlp.wire import Attributes, WireSpan

Fields = dict[str, Any]
"""Fields of a span by name."""

SMALLEST: Final = 1_024
"""No limit is below it: the structure around three texts has to fit into one attribute."""

_STEPS: Final = 16
"""Lengths are tried in so many parts of the limit. Below the first, texts are too short to say much."""
_MARK: Final = re.compile(r"…\[cut ([1-9][0-9]*) bytes\]\Z")
_LONGEST_MARK: Final = 40
_LISTS: Final = ("tool_calls", "tool_definitions")


def cut_text(text: str, limit: int) -> str:
    """Return `text` if it has at most `limit` bytes, else its beginning and a mark, `…[cut N bytes]`, together no more.

    Of a limit that has no room for the mark, the mark alone is left.
    """
    content = utf8(text)
    if len(content) <= limit:
        return text
    room = limit - len(utf8(_mark(len(content))))
    # no character is cut in two
    kept = content[: max(room, 0)].decode(errors="ignore")
    return kept + _mark(len(content) - len(utf8(kept)))


def _mark(gone: int) -> str:
    return f"…[cut {gone} bytes]"


def _mark_of(text: str) -> re.Match[str] | None:
    return _MARK.search(text, len(text) - _LONGEST_MARK) if text.endswith(" bytes]") else None


def is_cut(text: str) -> bool:
    """Whether a text ends in the mark of `cut_text`."""
    return _mark_of(text) is not None


def as_sent(text: str, limit: int) -> str:
    """A text as an attribute shows it, whether or not there is a limit."""
    return cut_text(text, limit) if limit else text


def cut_content(span: Span, limit: int, attributes: Attributes | None = None) -> Span:
    """Return the span with its content cut so that each attribute that carries it has at most `limit` bytes.

    It is the same object when all of it fits, as the second time it does. `attributes` are those of the span, if known.
    """
    written = _written(span) if attributes is None else attributes
    for attribute, fields in CARRIED[span.kind].items():
        if _size(written.get(attribute)) > limit:
            values = {field: getattr(span, field) for field in fields}
            span = msgspec.structs.replace(span, **_cut(span.kind, attribute, values, limit))
    return span


def as_cut(span: Span, shown: Span) -> Span:
    """Return the span with its content cut as `shown` has it cut, where that is the beginning of just this content."""
    cut = {
        field: getattr(shown, field)
        for field in _carried(span)
        if _is_cut_of(field, getattr(shown, field), getattr(span, field))
    }
    return msgspec.structs.replace(span, **cut) if cut else span


def shows_cut(span: Span) -> bool:
    """Whether a text of the span's content bears the mark."""
    return any(is_cut(text) for field in _carried(span) for text in _texts(getattr(span, field)))


def fits(attributes: Attributes, limit: int) -> bool:
    """Whether no attribute has more than `limit` bytes, in its name or in its value."""
    return all(_size(value) <= limit and _size(name) <= limit for name, value in attributes.items())


def within(wire: WireSpan, limit: int) -> WireSpan:
    """Return the span with each attribute in at most `limit` bytes; what is longer is whole in the remainder."""
    over = {
        name: value
        for name, value in wire.attributes.items()
        if name != names.REMAINDER and not fits({name: value}, limit)
    }
    kept = {name: value for name, value in wire.attributes.items() if name not in over and name != names.REMAINDER}
    remainder = msgspec.structs.replace(remainder_in(wire.attributes), whole=over)
    shown = cut_texts(over, limit)
    return msgspec.structs.replace(wire, attributes={**kept, **shown, **remainder_attributes(remainder, limit)})


def cut_texts(attributes: Attributes, limit: int) -> Attributes:
    """Attributes for the eye: texts that are too long are cut, and what else is too long is left out."""
    return {
        name: cut_text(value, limit) if isinstance(value, str) else value
        for name, value in attributes.items()
        if fits({name: "" if isinstance(value, str) else value}, limit)
    }


def _cut(kind: SpanKind, attribute: str, values: Fields, limit: int) -> Fields:
    """Cut the fields that one attribute carries: each text in them at one length; if there are too many, each value."""
    bare = Span(kind=kind, trace_id="", span_id="", name="", start_ns=0, end_ns=0, session_id="")

    def has_room(cut: Fields) -> bool:
        return _size(_written(msgspec.structs.replace(bare, **cut))[attribute]) <= limit

    def by_text(length: int) -> Fields:
        return {field: _shortened(value, length) for field, value in values.items()}

    found = _longest(by_text, has_room, limit)
    if found is not None:
        return found
    texts = {field: _text(value) for field, value in values.items()}

    def by_value(length: int) -> Fields:
        return {field: _beginning(field, value, texts[field], length) for field, value in values.items()}

    # where so many characters are escaped that nothing has room, the marks alone are left
    return _longest(by_value, has_room, limit) or by_value(0)


def _longest(cut: Callable[[int], Fields], has_room: Callable[[Fields], bool], limit: int) -> Fields | None:
    """What is left at the greatest length, in steps, that has room; None if nothing has."""
    best = cut(limit // _STEPS)
    if not has_room(best):
        return None
    lowest, highest = 2, _STEPS
    while lowest <= highest:
        step = (lowest + highest) // 2
        candidate = cut(step * limit // _STEPS)
        if has_room(candidate):
            best, lowest = candidate, step + 1
        else:
            highest = step - 1
    return best


def _shortened(value: Json, length: int) -> Json:
    """The value with every text in it cut to `length` bytes."""
    # a list that grows while it is walked: no depth exhausts the stack
    box: list[Any] = [value]
    pending: list[Any] = [box]
    for container in pending:
        for key, entry in container.items() if type(container) is dict else enumerate(container):
            if type(entry) is str:
                container[key] = cut_text(entry, length)
            elif type(entry) is dict or type(entry) is list:
                container[key] = entry.copy()
                pending.append(container[key])
    return box[0]


def _beginning(field: str, value: Json, text: str, length: int) -> Json:
    """The first `length` bytes of a value as text, unless it has fewer; in a list where the field holds one."""
    if value is None or _size(text) <= length:
        return value
    cut = cut_text(text, length)
    return [cut] if field in _LISTS else cut


def _is_cut_of(field: str, cut: Json, whole: Json) -> bool:
    """Whether a value is what `_cut` may have left of another one, whatever had room."""
    match cut:
        case [str(text)] if field in _LISTS and _is_beginning(text, _text(whole)):
            return True
        case str() if _is_beginning(cut, _text(whole)):
            return True
    pending = [(cut, whole)]
    for left, right in pending:
        if type(left) is not type(right):
            return False
        if type(left) is dict:
            if left.keys() != right.keys():
                return False
            pending.extend((value, right[key]) for key, value in left.items())
        elif type(left) is list:
            if len(left) != len(right):
                return False
            pending.extend(zip(left, right, strict=True))
        elif left != right and not (type(left) is str and _is_beginning(left, right)):
            return False
    return True


def _is_beginning(cut: str, text: str) -> bool:
    """Whether a text is the beginning of another one and the mark for the rest of it."""
    mark = _mark_of(cut)
    if mark is None:
        return False
    kept = cut[: mark.start()]
    return text.startswith(kept) and len(utf8(text)) - len(utf8(kept)) == int(mark[1])


def _text(value: Json) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _carried(span: Span) -> list[str]:
    """The fields that attributes carry."""
    return [field for fields in CARRIED[span.kind].values() for field in fields]


def _written(span: Span) -> Attributes:
    """The attributes that carry content."""
    writing = Writing({})
    write_content(span, writing)
    write_request(span, writing)
    return writing.attributes


def _size(value: Any) -> int:
    """The bytes of an attribute's texts; what else there is takes few."""
    if isinstance(value, str):
        return len(value) if value.isascii() else len(utf8(value))
    return sum(map(_size, value)) if isinstance(value, list) else 0


def _texts(value: Json) -> Iterator[str]:
    pending = [value]
    for part in pending:
        if type(part) is str:
            yield part
        elif type(part) is dict:
            pending.extend(part.values())
        elif type(part) is list:
            pending.extend(part)

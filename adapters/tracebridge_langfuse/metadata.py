"""The metadata entries of a span: the session's own, ours with a fixed name, and those of the events."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from operator import attrgetter
from typing import Final

import msgspec

from tracebridge.event import Json
from tracebridge.span import Edge, Span
from tracebridge_langfuse import exact, names
from tracebridge_langfuse.observation import is_servers_own
from tracebridge_langfuse.served import comes_back
from tracebridge_langfuse.text import is_plain, reads_as_itself

_OWN: Final = tuple(
    (names.METADATA + key, names.METADATA_ABSENT.get(field, "")) for field, key in names.METADATA_KEYS.items()
)
_values_of_own: Final = attrgetter(*names.METADATA_KEYS)


class Entries(msgspec.Struct, frozen=True, kw_only=True):
    """What is shown as metadata."""

    attributes: dict[str, str]
    """JSON texts by the name of the attribute."""
    opened: tuple[str, ...]
    """Keys of the opening event's fields that are among the entries."""
    closed: tuple[str, ...]
    """The same of the closing event's."""


def entries_of(span: Span, *, with_opened: bool) -> Entries:
    """The entries of `span`; without those of its opening event where the input shows these."""
    attributes = {names.METADATA + key: _text_of(value) for key, value in span.metadata.items() if is_shown(key, value)}
    for (name, absent), value in zip(_OWN, _values_of_own(span), strict=True):
        if value != absent:
            attributes[name] = _text_of(value)
    if span.error is not None and span.error.type is not None:
        attributes[names.METADATA + names.ERROR_TYPE] = _text_of(span.error.type)
    opened = _add(attributes, span.opened, span.metadata) if with_opened else ()
    closed = _add(attributes, span.closed, span.metadata)
    return Entries(attributes=attributes, opened=opened, closed=closed)


def is_shown(key: str, value: Json) -> bool:
    """Whether an entry of the sender's metadata can be shown under its own name."""
    return _is_free(key) and (key != names.TOOLS or not _is_taken_for_tools(value))


@lru_cache(maxsize=1024)
def _is_free(key: str) -> bool:
    return bool(
        key
        and key not in names.OWN_METADATA_KEYS
        and not is_servers_own(key)
        and not key.startswith(names.MISREAD_METADATA)
        and names.MEDIA_MARK not in key
        and is_plain(key)
    )


def _add(attributes: dict[str, str], edge: Edge | None, metadata: Mapping[str, Json]) -> tuple[str, ...]:
    if edge is None or not edge.fields:
        return ()
    added = []
    for key, value in edge.fields.items():
        name = names.METADATA + key
        is_new = name not in attributes and key not in metadata
        if value is not None and is_new and is_shown(key, value) and comes_back(value):
            attributes[name] = _text_of(value)
            added.append(key)
    return tuple(added)


def _text_of(value: Json) -> str:
    """A text as it is, so that LangFuse's filters find it by what it says; anything else as JSON."""
    return value if type(value) is str and reads_as_itself(value) else exact.sendable_text(value)


def _is_taken_for_tools(value: Json) -> bool:
    """Whether the server may take a value, which it reads if it is JSON text, for a list of tool definitions."""
    if type(value) is str:
        return value.lstrip().startswith("[")
    return type(value) is list and all(type(item) in (dict, str) for item in value) and _has_objects(value)


def _has_objects(items: list[Json]) -> bool:
    return any(type(item) is dict or item.lstrip().startswith("{") for item in items)

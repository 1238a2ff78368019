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
from tracebridge_langfuse.text import is_plain

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
    attributes = {
        names.METADATA + key: exact.sendable_text(value) for key, value in span.metadata.items() if is_free(key)
    }
    for (name, absent), value in zip(_OWN, _values_of_own(span), strict=True):
        if value != absent:
            attributes[name] = exact.sendable_text(value)
    if span.error is not None and span.error.type is not None:
        attributes[names.METADATA + names.ERROR_TYPE] = exact.sendable_text(span.error.type)
    opened = _add(attributes, span.opened, span.metadata) if with_opened else ()
    closed = _add(attributes, span.closed, span.metadata)
    return Entries(attributes=attributes, opened=opened, closed=closed)


@lru_cache(maxsize=1024)
def is_free(key: str) -> bool:
    """Whether a metadata key of the sender's can be shown under its own name."""
    return bool(
        key
        and key not in names.OWN_METADATA_KEYS
        and not is_servers_own(key)
        and not key.startswith(names.MISREAD_METADATA)
        and is_plain(key)
    )


def _add(attributes: dict[str, str], edge: Edge | None, metadata: Mapping[str, Json]) -> tuple[str, ...]:
    if edge is None or not edge.fields:
        return ()
    added = []
    for key, value in edge.fields.items():
        name = names.METADATA + key
        is_new = name not in attributes and key not in metadata
        if value is not None and is_new and is_free(key) and comes_back(value):
            attributes[name] = exact.encode(value)
            added.append(key)
    return tuple(added)

"""The remainder: what a span holds beyond LangFuse's fields, as one compact metadata value.

It is tracebridge's mark, too. It is written as JSON text of JSON text: LangFuse parses a metadata value once,
so the inner text comes back verbatim, whatever JavaScript would make of its numbers.
"""

from __future__ import annotations

from typing import Final

import msgspec

from tracebridge.event import Json
from tracebridge.span import Edge
from tracebridge_langfuse import exact

UsageNames = dict[str, str]
"""Dotted paths of the agent's usage object, each with the meaning that LangFuse's usage details give it."""

FRESH_INPUT: Final = "fresh_input"
"""Beside the meanings of `tracebridge.usage`: input tokens without those that a cache had."""


class Remainder(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Whatever is needed to rebuild a span and has no field in LangFuse."""

    fingerprint: str = ""
    opened: Edge | None = None
    """Its `fields` are those that are shown nowhere else."""
    closed: Edge | None = None
    opened_shown: tuple[str, ...] = ()
    """Entries of the opening event's fields that are metadata keys of their own."""
    closed_shown: tuple[str, ...] = ()
    input_is_opened: bool = False
    """Whether the input shows the opening event's fields."""
    inverted: tuple[str, ...] = ()
    """Of `input` and `output`, those that read otherwise than they look; see `payload`."""
    usage: UsageNames = {}
    usage_rest: dict[str, Json] = {}
    """Entries of the agent's usage object that are no counts of LangFuse's."""
    cost: tuple[str, ...] | None = None
    """Keys of the agent's cost object; empty when it gave a single number; None when it gave no cost."""
    exact: dict[str, Json] = {}
    """Span fields that LangFuse's field does not give back exactly. An object holds only the entries
    concerned."""


def to_metadata(remainder: Remainder) -> str:
    """The text of the metadata attribute."""
    text = exact.encode_plain(remainder)
    if text is None:
        text = exact.encode_any(msgspec.to_builtins(remainder))
    return exact.encode(text)


def from_metadata(value: Json) -> Remainder | None:
    """Read the metadata value that the server gives back; None when it is not a remainder of ours."""
    if type(value) is not str:
        return None
    try:
        read = exact.decode(value)
        # what a server gives back as it was stored is JSON text still
        return msgspec.convert(exact.decode(read) if type(read) is str else read, Remainder)
    except ValueError:  # no JSON, or none of ours
        return None

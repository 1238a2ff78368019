"""`Policy`: what is left out of a recording, or of what one sink is sent.

Capture and sinks use the same pure functions, so that what a sink holds can always be foretold from the
journal: for policies `a` and `b`, applying one after the other equals applying `narrow(a, b)` once.

What a policy leaves out of an event's `data` stays visible as sizes. `data.<key>` goes; in its place stand
`data.<key>_chars`, the characters of all its string values, and, where it was a list, `data.<key>_count`, its
length. An entry that is null has nothing to hide and stays.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Final

import msgspec

from tracebridge.event import (
    LLM_REQUEST,
    LLM_RESPONSE,
    THINKING,
    TOOL_CALL,
    TOOL_RESULT,
    TURN_END,
    TURN_START,
    Json,
)

if TYPE_CHECKING:
    from tracebridge.span import Span

MESSAGE_KEYS: Final[dict[str, tuple[str, ...]]] = {
    TURN_START: ("user_input",),
    TURN_END: ("output",),
    LLM_REQUEST: ("messages",),
    LLM_RESPONSE: ("content", "tool_calls"),
    TOOL_CALL: ("args",),
    TOOL_RESULT: ("result",),
}
"""By event type, the entries of `data` that `include_messages: false` leaves out."""

THINKING_KEYS: Final[dict[str, tuple[str, ...]]] = {
    LLM_RESPONSE: ("thinking",),
    THINKING: ("content",),
}
"""By event type, the entries of `data` that `include_thinking: false` leaves out."""

_HASHES = 2**64
_MOST_CUT = 10**18 - 1  # a mark of more digits would not be read back, and cutting would not be idempotent
_CUT_MARK = re.compile(r"…\[cut ([1-9][0-9]{0,17})\]\Z")


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What is recorded, or sent. The default leaves nothing out."""

    sample_rate: float = 1.0
    """The share of sessions that is kept, from 0 to 1."""
    include_messages: bool = True
    """Whether messages, user input, outputs, response content, tool calls and their results are kept."""
    include_thinking: bool = True
    """Whether the text of reasoning is kept."""
    max_content_length: int | None = None
    """The most characters that are kept of one string value; None for all."""
    include_unsampled: bool = True
    """Whether spans are sent of traces that somebody outside of the agent began and does not want to be kept.

    The journal records them in any case, so this is for sinks alone.
    """


CAPTURE_KEYS: Final = tuple(key for key in Policy.__struct_fields__ if key != "include_unsampled")
"""The settings by which capture may leave something out."""

CONTENT_KEYS: Final = ("include_messages", "include_thinking", "max_content_length")
"""The settings by which something is left out of what is sent; the others say what is sent at all."""


def keeps_session(policy: Policy, session_id: str) -> bool:
    """Whether the policy's sampling keeps a session.

    The answer depends on the id and the rate alone, in every process and version; a session that is kept at
    one rate is kept at every higher one.
    """
    if policy.sample_rate >= 1.0:
        return True
    # imported only by those who sample: it loads OpenSSL, which the import of the core need not pay for
    from hashlib import blake2b

    digest = blake2b(session_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") < policy.sample_rate * _HASHES


def keeps_span(policy: Policy, span: Span) -> bool:
    """Whether the policy keeps a span of a session that it keeps."""
    return policy.include_unsampled or span.is_sampled


def touches(policy: Policy, event_type: str, data_bytes: int) -> bool:
    """Whether `apply` could change an event's `data` whose JSON takes `data_bytes` bytes.

    It spares the walk through usual events: no string has more characters than the JSON around it has bytes.
    """
    if policy.max_content_length is not None and data_bytes > policy.max_content_length:
        return True
    return bool(_left_out(policy, event_type))


def untouched_size(policy: Policy) -> int:
    """The most bytes of a line of which `apply` is certain to change nothing; -1 if there is no such line."""
    if not (policy.include_messages and policy.include_thinking):
        return -1
    return sys.maxsize if policy.max_content_length is None else policy.max_content_length


def apply(policy: Policy, event_type: str, data: dict[str, Json]) -> dict[str, Json]:
    """Return what the policy keeps of an event's `data`; the same object when that is all of it.

    `data` holds JSON values only and is never changed. Applying a policy twice equals applying it once.
    """
    kept = data
    for key in _left_out(policy, event_type):
        if kept.get(key) is not None:
            kept = _without(kept, key)
    limit = policy.max_content_length
    if limit is not None and _has_longer(kept, limit):
        kept = _shortened(kept, limit)
    return kept


def cut(text: str, limit: int) -> str:
    """Return `text` if it has at most `limit` characters, else its beginning and the mark `…[cut N]`.

    N counts all characters that went, in this cut and in those before it: a text that bears a mark already is
    measured without it.
    """
    if len(text) <= limit:
        return text
    kept, gone = _split_mark(text)
    if len(kept) <= limit:
        return text
    return f"{kept[:limit]}…[cut {min(gone + len(kept) - limit, _MOST_CUT)}]"


def characters_cut(text: str) -> int:
    """How many characters `cut` took off a text, by its mark; 0 if it bears none."""
    return _split_mark(text)[1]


def narrow(capture: Policy, sink: Policy) -> Policy:
    """Return the policy that leaves out what either of the two leaves out."""
    limits = [policy.max_content_length for policy in (capture, sink) if policy.max_content_length is not None]
    return Policy(
        sample_rate=min(capture.sample_rate, sink.sample_rate),
        include_messages=capture.include_messages and sink.include_messages,
        include_thinking=capture.include_thinking and sink.include_thinking,
        max_content_length=min(limits, default=None),
        include_unsampled=capture.include_unsampled and sink.include_unsampled,
    )


def wider_keys(sink: Policy, capture: Policy) -> tuple[str, ...]:
    """Name the settings by which `sink` asks for more than `capture` keeps."""
    narrowed = narrow(capture, sink)
    return tuple(key for key in Policy.__struct_fields__ if getattr(sink, key) != getattr(narrowed, key))


def is_wider(sink: Policy, capture: Policy) -> bool:
    """Whether `sink` asks for something that `capture` does not keep."""
    return bool(wider_keys(sink, capture))


def describe(policy: Policy) -> str:
    """Return the policy as one canonical line of JSON, which `from_description` reads."""
    canonical = msgspec.structs.asdict(policy) | {"sample_rate": float(policy.sample_rate)}
    if policy.include_unsampled:
        # as it was described before there was such a setting
        del canonical["include_unsampled"]
    return msgspec.json.encode(canonical, order="deterministic").decode()


def from_description(text: str) -> Policy:
    """Return the policy that `describe` made `text` of.

    Raises:
        msgspec.ValidationError: `text` describes no policy.
    """
    return msgspec.json.decode(text, type=Policy)


def _left_out(policy: Policy, event_type: str) -> tuple[str, ...]:
    keys: tuple[str, ...] = ()
    if not policy.include_messages:
        keys = MESSAGE_KEYS.get(event_type, ())
    if not policy.include_thinking:
        keys += THINKING_KEYS.get(event_type, ())
    return keys


def _without(data: dict[str, Json], key: str) -> dict[str, Json]:
    value = data[key]
    sizes = {f"{key}_chars": _characters(value)}
    if type(value) is list:
        sizes[f"{key}_count"] = len(value)
    return {name: kept for name, kept in data.items() if name != key} | sizes


def _characters(value: Json) -> int:
    # a text that was cut before counts as long as it once was: the size must not depend on the way here
    total = 0
    pending = [value]
    for part in pending:
        kind = type(part)
        if kind is str:
            kept, gone = _split_mark(part)
            # bounded, as a mark is: a cut on the way here would have lost what is beyond
            total += min(len(kept) + gone, _MOST_CUT)
        elif kind is dict:
            pending.extend(part.values())
        elif kind is list:
            pending.extend(part)
    return total


def _has_longer(data: dict[str, Json], limit: int) -> bool:
    # a list that grows while it is walked is the cheapest way through a tree, and no depth exhausts the stack
    pending: list[Json] = [data]
    for container in pending:
        for value in container.values() if type(container) is dict else container:
            kind = type(value)
            if kind is str:
                if len(value) > limit and cut(value, limit) is not value:
                    return True
            elif kind is dict or kind is list:
                pending.append(value)
    return False


def _shortened(data: dict[str, Json], limit: int) -> dict[str, Json]:
    copy = data.copy()
    pending: list[Json] = [copy]
    for container in pending:
        for key, value in container.items() if type(container) is dict else enumerate(container):
            kind = type(value)
            if kind is str:
                if len(value) > limit:
                    container[key] = cut(value, limit)
            elif kind is dict or kind is list:
                container[key] = value.copy()
                pending.append(container[key])
    return copy


def _split_mark(text: str) -> tuple[str, int]:
    if not text.endswith("]"):
        return text, 0
    mark = _CUT_MARK.search(text, max(0, len(text) - len("…[cut ]") - 18))
    return (text, 0) if mark is None else (text[: mark.start()], int(mark[1]))

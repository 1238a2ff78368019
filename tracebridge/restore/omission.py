"""What a policy left out of events, as far as they show it themselves. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tracebridge.event import Json
from tracebridge.policy import MESSAGE_KEYS, THINKING_KEYS, characters_cut


def omissions_of(events: Iterable[dict[str, Json]]) -> Counter[str]:
    """By the name of a policy's setting, how many values it has left out or cut."""
    found: Counter[str] = Counter()
    for event in events:
        data = event.get("data")
        if not isinstance(data, dict):
            continue
        for setting, keys in (("include_messages", MESSAGE_KEYS), ("include_thinking", THINKING_KEYS)):
            found[setting] += sum(_is_left_out(data, key) for key in keys.get(event["event_type"], ()))
        found["max_content_length"] += _cut_in(data)
    return +found


def _is_left_out(data: dict[str, Json], key: str) -> bool:
    return key not in data and f"{key}_chars" in data


def _cut_in(data: dict[str, Json]) -> int:
    count = 0
    pending: list[Json] = [data]
    for part in pending:
        if isinstance(part, str):
            count += characters_cut(part) > 0
        elif isinstance(part, dict):
            pending.extend(part.values())
        elif isinstance(part, list):
            pending.extend(part)
    return count

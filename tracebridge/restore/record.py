"""What restoring came to, as typed records."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

Origin = Literal["tracebridge", "other"]
"""Who sent a session's spans: tracebridge, whose spans hold their events, or somebody else, of whose spans events are
made that tell as much as they can."""

WORDS: Final = {
    "missing": "events stand between others in the original and are not at the backend",
    "include_messages": "contents were left out by `include_messages: false`; their sizes are there",
    "include_thinking": "thoughts were left out by `include_thinking: false`; their sizes are there",
    "max_content_length": "texts were cut, and end in `…[cut N]`",
    "changed": "spans at the backend are not what their events give: somebody changed them",
    "unreadable": "spans hold no events any more and were left out: somebody changed them",
    "several_files": "events come from several files of one session, which now stand one after another in one",
    "kind": "spans of a kind that the journal has no event for were written as `span` events",
    "ids": "ids that are no W3C ids were replaced, the same way each time",
    "parent": "spans name a parent that the backend does not show in this session",
    "not_found": "sessions that were asked for are not at the backend",
}
"""By name, what a shortfall is, for people; a count goes before it. A declared loss has its own words."""


class Shortfall(msgspec.Struct, frozen=True, kw_only=True):
    """Something that the restored files do not tell as the original did, or as the backend does."""

    name: str
    """One of `WORDS`, or the name of a loss that the sink declares."""
    count: int


class RestoredSession(msgspec.Struct, frozen=True, kw_only=True):
    """One session that was written."""

    session_id: str
    folder: str
    """The name of its folder."""
    origin: Origin
    events: int
    """Lines that were written."""
    spans: dict[str, int]
    """By kind, how many spans they were made of; a span that is stored twice counts once."""
    repeats: int
    """Copies of spans beyond the first."""
    others: int
    """Spans of other senders in a session of tracebridge's, which are no part of its journal."""
    losses: dict[str, int]
    """By the name of a declared loss, how many spans show less than their events, which are whole."""
    shortfalls: tuple[Shortfall, ...]


class Restoration(msgspec.Struct, frozen=True, kw_only=True):
    """What restoring came to."""

    sink: str
    endpoint: str
    out: str
    sessions: tuple[RestoredSession, ...]
    skipped: tuple[str, ...]
    """Sessions that were there already and were left as they are."""
    not_found: tuple[str, ...]
    """Sessions that were asked for and are not at the backend."""
    probes: int
    """Sessions of `tracebridge doctor`, which are nobody's."""
    declared: dict[str, str]
    """The losses that the sink declares, in words."""
    unlisted: str
    """What the backend may hold and does not list, in words; empty where it lists all."""
    sampled: float
    """The share of sessions that the sink is sent, by its policy now: the others are not at the backend."""
    trouble: str
    """Why it ended before its end; empty if it did not."""
    left: int
    """Sessions that were not reached."""

    @property
    def totals(self) -> dict[str, int]:
        """By name, what is not as it was, over all sessions."""
        totals: dict[str, int] = {}
        for session in self.sessions:
            for shortfall in session.shortfalls:
                totals[shortfall.name] = totals.get(shortfall.name, 0) + shortfall.count
        if self.not_found:
            totals["not_found"] = len(self.not_found)
        return totals

    def words(self, name: str) -> str:
        """What the shortfall called `name` is, for people."""
        return WORDS.get(name) or f"spans show it: {self.declared.get(name, '')}"

    @property
    def exit_code(self) -> Literal[0, 1, 2]:
        """0: everything was restored. 1: something is not as it was, or may not be listed. 2: not read to the end."""
        if self.trouble:
            return 2
        return 1 if self.totals or self.unlisted else 0

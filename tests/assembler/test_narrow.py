"""What a policy leaves of a span that was made already is what it would have left of its events."""

from __future__ import annotations

from functools import partial
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.assembler.journals import agent_journal, any_journal, familiar_journal, lived_journal
from tracebridge import policy as policies
from tracebridge.assembler import Assembler, Place
from tracebridge.assembler.deadlines import LATEST_NS
from tracebridge.assembler.narrow import narrow_event, narrow_span
from tracebridge.event import event_from_json
from tracebridge.policy import Policy
from tracebridge.span import Span

journals = (
    any_journal
    | agent_journal()
    | familiar_journal()
    | lived_journal().map(lambda written: [line.event for line in written])
)


def assembled(journal: list[dict[str, Any]], policy: Policy) -> list[Span]:
    assembler = Assembler(partial(narrow_event, partial(policies.apply, policy)))
    spans = []
    for ordinal, line in enumerate(journal):
        event = event_from_json(line if "timestamp" in line else {"timestamp": "2026-02-06T22:10:00Z", **line})
        spans += assembler.feed(event, Place(0, ordinal))
    return spans + assembler.expire(LATEST_NS)


@given(
    journals,
    st.builds(
        Policy,
        include_messages=st.booleans(),
        include_thinking=st.booleans(),
        max_content_length=st.none() | st.integers(1, 6),
    ),
)
def test_narrowing_a_span_is_narrowing_its_events(journal: list[dict[str, Any]], policy: Policy) -> None:
    whole, narrow = assembled(journal, Policy()), assembled(journal, policy)
    assert [narrow_span(partial(policies.apply, policy), span) for span in whole] == narrow

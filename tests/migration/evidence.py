"""Sessions, and the evidence that each of them was compared with a backend and is clean."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import msgspec

from tests.delivery.rig import write_session
from tests.workplace import Workplace
from tracebridge import policy as policies
from tracebridge.delivery.evidence import Compared
from tracebridge.delivery.records import Advance
from tracebridge.delivery.rules import current_rules
from tracebridge.delivery.state import State
from tracebridge.journal import layout
from tracebridge.session_stream import SessionStream


@contextmanager
def state_of(workplace: Workplace) -> Iterator[State]:
    state = State(layout.state_file(workplace.trace_dir))
    try:
        yield state
    finally:
        state.close()


def write_sessions(workplace: Workplace, count: int, days: float = 2.0) -> None:
    """Sessions of one turn that began evenly spread over some days, the last of them an hour ago."""
    last = datetime.now(UTC) - timedelta(hours=1)
    for number in range(count):
        began = last - timedelta(days=days * (count - 1 - number) / max(1, count - 1))
        write_session(workplace.trace_dir, f"s{number}", turns=1, at=began.isoformat())


def deliver(workplace: Workplace) -> None:
    """Write down that every sink that is switched on was delivered all there is: the gate itself asks no backend."""
    with state_of(workplace) as state:
        for sink in workplace.settings.enabled_sinks:
            target, folder = state.target(sink.name, sink.endpoint), state.folder(workplace.trace_dir)
            for one in layout.session_folders(workplace.trace_dir):
                stream = SessionStream(layout.events_file(one), partial(policies.apply, sink.policy))
                for _ in stream.steps():
                    pass
                advance = Advance(folder=folder, session_id=one.name, cursor=stream.cursor)
                state.write_down(target, [], [advance], [])


def compare_all(workplace: Workplace, sink_name: str = "langfuse", scope: str = "{}", **changes: Any) -> None:
    """Write down that a validation compared every session of the trace folder as it is now."""
    sink = workplace.settings.sink(sink_name)
    assert sink is not None
    with state_of(workplace) as state:
        target, folder = state.target(sink.name, sink.endpoint), state.folder(workplace.trace_dir)
        number = state.evidence.begin(target, scope)
        found = [
            Compared(
                folder=folder,
                session=one.name,
                compared_ns=time.time_ns(),
                size=layout.events_file(one).stat().st_size,
                rules=current_rules(sink),
                spans=4,
                defects=0,
            )
            for one in layout.session_folders(workplace.trace_dir)
        ]
        state.evidence.add(target, number, [msgspec.structs.replace(one, **changes) for one in found])
        state.evidence.end(number, json.dumps({"sessions": len(found)}))

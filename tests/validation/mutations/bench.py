"""A development backend that holds what an agent recorded, and may be damaged."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from tests.validation.mutations.defects import DEFECTS, Defect, Planted
from tests.workplace import Workplace, both, delete_stored
from tracebridge.devserver import DevServer
from tracebridge.sink import Outcome
from tracebridge.span import Span
from tracebridge.validation import Scope, Validator, Verdict, validator

Backend = Literal["langfuse", "otel"]
_SESSIONS = 5
_STORES = {"langfuse": "langfuse", "otel": "otlp"}


class Bench:
    """Some sessions, delivered."""

    def __init__(self, folder: Path, server: DevServer, backend: Backend) -> None:
        server.clear()
        self._server = server
        self._backend = backend
        self._workplace = Workplace(folder, {backend: both(server)[backend]}, delivery="external")
        for number in range(_SESSIONS):
            self._record(f"s{number}")
        assert self._workplace.call("ship", "--patience", "20").returncode == 0
        self.sessions: dict[str, list[Span]] = defaultdict(list)
        for span in self._workplace.observed(backend):
            self.sessions[span.session_id].append(span)

    def _record(self, session_id: str) -> None:
        tracer = self._workplace.tracer()
        deep = [{"type": "text", "text": f"{session_id} " + "Where is my order? " * 200}]
        with tracer.trace_session(
            session_id, {"plan": "professional"}, user_id="ada", tags=["b", "a"], environment="production"
        ) as session:
            for number in (1, 2):
                with tracer.trace_turn(session, user_input=f"question {number}") as turn:
                    with session.llm_call(model="gpt-4o", messages=[{"role": "user", "content": deep}]) as call:
                        usage = {"input": 30 + number, "output": 4}
                        call.finish(f"a rather long answer {number}", tokens=usage, cost={"total": 0.0125})
                    with session.tool_call("search", {"q": number}) as tool:
                        tool.finish("found" if number == 1 else None, error=None if number == 1 else "no such order")
                    turn.output = f"answer {number}"
        tracer.shutdown()

    def plant(self, planted: Iterable[Planted]) -> None:
        """Damage what the backend holds."""
        every = list(planted)
        for one in every:
            for span in one.taken:
                delete_stored(self._server, _STORES[self._backend], span)
        put = [span for one in every for span in one.put]
        if not put:
            return
        (settings,) = self._workplace.settings.enabled_sinks
        sink = settings.open_sink()
        try:
            # each by itself: of several copies in one request LangFuse keeps one
            receipts = [sink.deliver(sink.join([sink.encode(span)])) for span in put]
        finally:
            sink.close()
        assert {receipt.outcome for receipt in receipts} == {Outcome.ACCEPTED}, receipts

    def verdict(self, scope: Scope = Scope()) -> Verdict:  # noqa: B008
        """Validate."""
        (settings,) = self._workplace.settings.enabled_sinks
        one = Validator(settings, self._workplace.trace_dir)
        try:
            return one.validate(scope)
        finally:
            one.close()


@contextmanager
def impatient() -> Iterator[None]:
    """The development backend shows everything at once, so nothing need be waited for."""
    before = validator.LEAST_PATIENCE_S
    validator.LEAST_PATIENCE_S = 0.0  # type: ignore[misc]
    try:
        yield
    finally:
        validator.LEAST_PATIENCE_S = before  # type: ignore[misc]


def drawn(sessions: dict[str, list[Span]], chance: random.Random) -> list[tuple[Defect, Planted]]:
    """Some defects that do not get into each other's way: each has spans, or a session, of its own."""
    found: list[tuple[Defect, Planted]] = []
    free = {name: list(spans) for name, spans in sessions.items()}
    # of a session that is merged or missing nothing else is changed
    for defect in chance.sample(DEFECTS, chance.randint(1, 8)):
        name = chance.choice(sorted(free))
        spans = free[name]
        if defect.takes_session:
            if len(spans) < len(sessions[name]):
                continue
            found.append((defect, defect.plant(spans, spans[0], chance)))
            free[name] = []
            continue
        candidates = [span for span in spans if defect.concerns(span)]
        if candidates:
            span = chance.choice(candidates)
            found.append((defect, defect.plant(spans, span, chance)))
            spans.remove(span)
    return found


def counts_of(planted: Iterable[Planted]) -> Counter[str]:
    """What must be found in all."""
    total: Counter[str] = Counter()
    for one in planted:
        total += one.counts
    return total

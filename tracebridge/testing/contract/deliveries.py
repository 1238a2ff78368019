"""The sink under the real delivery: journal, cursors, batches, retries; counted at the backend."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import pytest

from tracebridge.span import Span
from tracebridge.testing.contract.backend import BackendUnderTest, SpanId
from tracebridge.testing.contract.workplace import SPANS_A_SESSION, Workplace
from tracebridge.testing.faults import Fault

_POISON: Final = "contract-poison-"
_PATIENCE_S: Final = 20.0
_POLL_S: Final = 0.01


class DeliveryCases:
    """Nothing is lost, nothing is there twice, whatever the backend does."""

    seed = 1
    """Draws which requests and spans meet trouble."""
    sessions = 8
    """How many sessions are recorded; each makes one request."""

    def test_everything_arrives_exactly_once(self, backend: BackendUnderTest, tmp_path: Path) -> None:
        """When all goes well."""
        work = Workplace(tmp_path, backend)
        work.record(self.sessions)
        work.deliver()
        assert work.check_arrived().possible_repeats == 0

    def test_a_backend_that_is_busy_now_and_then_gets_everything_exactly_once(
        self, backend: BackendUnderTest, tmp_path: Path
    ) -> None:
        """Random transient trouble. As nothing was stored, nothing is a repeat, with a reader or without."""
        backend.require("busy")
        work = Workplace(tmp_path, backend)
        work.record(self.sessions)
        backend.faults.add(backend.on_export(backend.busy, probability=0.3, seed=self.seed))
        work.deliver()
        assert sum(backend.faults.struck) > 0, "another `seed` is needed: no request met the fault"
        assert work.check_arrived().possible_repeats == 0

    def test_refused_spans_and_no_others_become_dead_letters_with_the_reason(
        self, backend: BackendUnderTest, tmp_path: Path
    ) -> None:
        """Random permanent trouble: the backend refuses a whole request for one span of many."""
        backend.require("refused")
        work = Workplace(tmp_path, backend)
        poisoned = _record_with_poison(work, self.sessions, self.seed)
        backend.faults.add(backend.on_export(backend.refused, body_contains=_POISON))
        work.deliver()
        account = work.check_arrived(dead=poisoned)
        assert len(poisoned) == self.sessions // 4
        assert all(backend.refused.body in reason for reason in account.dead.values())

    def test_transient_and_permanent_trouble_together_lose_and_repeat_nothing(
        self, backend: BackendUnderTest, tmp_path: Path
    ) -> None:
        """Mixed: busy now and then, slow, and some spans refused."""
        backend.require("busy", "refused", "slow")
        work = Workplace(tmp_path, backend)
        poisoned = _record_with_poison(work, self.sessions, self.seed)
        backend.faults.add(
            backend.on_export(backend.busy, probability=0.25, seed=self.seed),
            backend.on_export(backend.refused, body_contains=_POISON, latency_s=0.05),
            backend.on_export(Fault(latency_s=0.05)),
        )
        work.deliver()
        assert backend.faults.struck[0] > 0, "another `seed` is needed: no request met the fault"
        assert work.check_arrived(dead=poisoned).possible_repeats == 0

    def test_a_slow_backend_gets_everything_exactly_once(self, backend: BackendUnderTest, tmp_path: Path) -> None:
        """As long as it answers within the time-out."""
        backend.require("slow")
        work = Workplace(tmp_path, backend)
        work.record(self.sessions)
        backend.faults.add(backend.on_export(Fault(latency_s=backend.timeout_s / 4)))
        work.deliver()
        assert work.check_arrived().possible_repeats == 0

    def test_a_backend_that_hung_and_stores_after_all_is_not_sent_its_spans_twice(
        self, backend: BackendUnderTest, tmp_path: Path
    ) -> None:
        """It hangs with everything, beyond the time-out, and then does what it was asked to."""
        backend.require("hang")
        work = Workplace(tmp_path, backend)
        work.record(self.sessions // 2)
        backend.faults.add(backend.on_export(Fault(hang=True)))
        with work.shipping() as shipper:
            _until(lambda: bool(shipper.troubles()), "the request that hangs is given up")
            backend.faults.clear()
            work.finish(shipper, goes_on=True)
        work.check_arrived()

    def test_a_request_that_hangs_for_ever_holds_up_no_other(self, backend: BackendUnderTest, tmp_path: Path) -> None:
        """Nor is what it held lost, though it was never stored."""
        backend.require("hang")
        work = Workplace(tmp_path, backend)
        work.record(self.sessions // 2)
        backend.faults.add(backend.on_export(Fault(hang=True, drop=True, times=1)))
        work.deliver(goes_on=True)
        assert backend.faults.held == 1, "it hangs still"
        work.check_arrived()

    def test_what_is_refused_in_part_is_found_and_the_rest_is_stored(
        self, backend: BackendUnderTest, tmp_path: Path
    ) -> None:
        """The backend takes a request but for some spans. With a reader those are told from the others."""
        backend.require("partial")
        work = Workplace(tmp_path, backend)
        work.record(self.sessions)
        backend.faults.add(backend.on_export(Fault(reject=2, body="too old", times=2)))
        work.deliver(goes_on=True)
        owed = work.expected().keys()
        stored = set(backend.stored())
        dead = work.account().dead
        assert len(owed - stored) == 4
        assert owed - stored <= dead.keys(), "what is not stored is a dead letter"
        assert all("too old" in reason for reason in dead.values())
        if backend.capabilities.readable:
            work.check_arrived(dead=owed - stored)
        else:
            # nobody knows which were refused, so all of the two requests may be meant
            assert len(dead) == 2 * SPANS_A_SESSION

    def test_requests_that_are_too_large_are_split_until_they_fit(
        self, backend: BackendUnderTest, tmp_path: Path
    ) -> None:
        """The backend takes less at once than was declared."""
        backend.require("too_large")
        work = Workplace(tmp_path, backend, spans_a_request=20)
        work.record(self.sessions)
        largest = _size_of_a_few(backend, list(work.expected().values()))
        backend.faults.add(backend.on_export(backend.too_large, over_bytes=largest))
        work.deliver()
        assert sum(backend.faults.struck) > 0, "no request was too large"
        assert work.check_arrived().possible_repeats == 0

    @pytest.mark.parametrize(
        "effect", [{"reset": "after"}, {"reset": "before"}, {"truncate": True}], ids=["stored", "dropped", "cut off"]
    )
    def test_a_request_without_an_answer_is_stored_once_or_counted(
        self, backend: BackendUnderTest, tmp_path: Path, effect: dict[str, object]
    ) -> None:
        """Ambiguous: stored and then reset, reset before it was stored, the answer cut off in the middle.

        Where the backend can be read, or keeps one copy by itself, each span is there once. Elsewhere it may be there
        twice, and delivery has counted it.
        """
        backend.require("reset")
        work = Workplace(tmp_path, backend)
        work.record(self.sessions)
        fault = msgspec.convert({"route": backend.export_route, "every": 3, "times": 2, **effect}, Fault)
        backend.faults.add(fault)
        work.deliver(goes_on=True)
        assert sum(backend.faults.struck) == 2
        work.check_arrived()

    def test_refused_credentials_lose_nothing(self, backend: BackendUnderTest, tmp_path: Path) -> None:
        """The sink pauses and says so; once they are right, everything arrives."""
        backend.require("unauthorized")
        work = Workplace(tmp_path, backend)
        work.record(self.sessions // 2)
        backend.faults.add(backend.on_export(backend.unauthorized))
        with work.shipping() as shipper:
            _until(lambda: bool(shipper.troubles()), "it says that it is refused")
            assert work.account().dead == {}
        backend.faults.clear()
        work.deliver()
        assert work.check_arrived().possible_repeats == 0


def _record_with_poison(work: Workplace, sessions: int, seed: int) -> set[SpanId]:
    """Record sessions, some with a span that the backend will refuse; return those spans."""
    struck = random.Random(seed).sample(range(sessions), sessions // 4)
    work.record(sessions, {number: f"{_POISON}{number}" for number in struck})
    return {span_id for span_id, span in work.expected().items() if _POISON in str(span.input)}


def _size_of_a_few(backend: BackendUnderTest, spans: list[Span]) -> int:
    """How many bytes a request of three spans has, at most."""
    sink = backend.sink_type.open_sink(backend.settings)
    parts = sorted((sink.encode(span) for span in spans), key=len)
    size = len(sink.join(parts[-3:]))
    sink.close()
    return size


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {_PATIENCE_S:g} s"
        time.sleep(_POLL_S)

"""What nobody answered is sent again only once it is certain that it did not arrive."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples import examples
from tracebridge.delivery.settle import BEHIND_LAGS, LONELY_LAGS, Settled, Settlement, missing
from tracebridge.delivery.state import Batch, SpanRef
from tracebridge.errors import BackendError, BusyBackendError, IncompleteAnswerError
from tracebridge.sink import Query
from tracebridge.span import Span

LAG_S = 10.0


def ref(number: int, session: str = "s") -> SpanRef:
    return SpanRef(f"{number:032x}", f"{number:016x}", session, number * 1_000_000_000, 2)


def batch(*numbers: int) -> Batch:
    return Batch(parts=(), refs=tuple(map(ref, numbers)), id=numbers[0])


class Backend:
    """Shows each span from a certain time on, and is read at the time that `now` says."""

    def __init__(self) -> None:
        self.now = 0.0
        self.shown_from: dict[int, float] = {}
        self.queries: list[Query] = []
        self.is_away = False
        self.partial: set[int] = set()
        """Those whose traces are shown only in part."""
        self.answers = 1_000_000
        """How many more questions it answers before it asks to be read later."""

    def read(self, query: Query) -> Iterator[Span]:
        self.queries.append(query)
        if self.answers == 0:
            raise BusyBackendError("too often", 60.0)
        self.answers -= 1
        if self.is_away:
            raise BackendError("away")
        if any(ref(number).trace_id in query.trace_ids for number in self.partial):
            raise IncompleteAnswerError("only a part")
        for number, since in self.shown_from.items():
            found = ref(number)
            in_window = (query.start_ns or 0) <= found.start_ns < (query.end_ns or 2**63)
            if since <= self.now and in_window and query.session_id in (None, found.session_id):
                yield Span(
                    kind="turn",
                    trace_id=found.trace_id,
                    span_id=found.span_id,
                    name="",
                    start_ns=found.start_ns,
                    end_ns=found.start_ns,
                    session_id=found.session_id,
                )

    def close(self) -> None:
        return


@pytest.fixture
def backend() -> Backend:
    return Backend()


@pytest.fixture
def settlement() -> Settlement:
    return Settlement(LAG_S)


def settle(settlement: Settlement, backend: Backend, now: float) -> list[Settled]:
    backend.now = now
    return settlement.settle(backend, now)


def test_what_shows_is_there(settlement: Settlement, backend: Backend) -> None:
    backend.shown_from = {1: 0.0, 2: 0.0}
    settlement.add(batch(1, 2), sent_at=0.0)
    (settled,) = settle(settlement, backend, LAG_S)
    assert (settled.absent, settled.is_proven) == ((), True)
    assert len(settlement) == 0


def test_nothing_is_asked_before_the_backend_can_have_stored_it(settlement: Settlement, backend: Backend) -> None:
    settlement.add(batch(1), sent_at=0.0)
    assert settlement.next_look_s(3.0) == LAG_S - 3
    assert settle(settlement, backend, LAG_S - 1) == []
    assert backend.queries == []


def test_what_does_not_show_is_not_absent_as_long_as_nothing_later_shows(
    settlement: Settlement, backend: Backend
) -> None:
    settlement.add(batch(1), sent_at=0.0)
    assert settle(settlement, backend, LAG_S) == []
    settlement.accepted(batch(9), sent_at=2 * LAG_S)
    assert settle(settlement, backend, 4 * LAG_S) == [], "what was accepted later does not show either"


def test_what_does_not_show_though_something_later_does_is_absent(settlement: Settlement, backend: Backend) -> None:
    settlement.add(batch(1, 2), sent_at=0.0)
    backend.shown_from = {1: 0.0}
    assert settle(settlement, backend, LAG_S) == []
    settlement.accepted(batch(9), sent_at=2 * LAG_S)
    backend.shown_from[9] = 3 * LAG_S
    assert settle(settlement, backend, 4 * LAG_S) == [], "it has only just begun to show"
    (settled,) = settle(settlement, backend, 5 * LAG_S)
    assert (settled.absent, settled.is_proven) == ((1,), True)


def test_something_that_was_sent_less_than_a_lag_later_proves_nothing(settlement: Settlement, backend: Backend) -> None:
    settlement.add(batch(1), sent_at=0.0)
    settlement.accepted(batch(9), sent_at=LAG_S / 2)
    backend.shown_from = {9: LAG_S / 2, 1: LAG_S * 1.4}
    assert settle(settlement, backend, LAG_S) == []
    (settled,) = settle(settlement, backend, 5 * LAG_S)
    assert settled.absent == (), "it was stored out of order"


def test_a_backend_that_shows_things_after_minutes_is_waited_for(settlement: Settlement, backend: Backend) -> None:
    minutes = 600.0
    settlement.add(batch(1), sent_at=0.0)
    backend.shown_from = {1: minutes}
    for number in range(2, 60):
        settlement.accepted(batch(number), sent_at=number * LAG_S)
        backend.shown_from[number] = number * LAG_S + minutes
        assert settle(settlement, backend, number * LAG_S) == []
    (settled,) = settle(settlement, backend, minutes + 61)
    assert settled.absent == ()


def test_without_anything_later_it_is_given_up_without_proof_in_the_end(
    settlement: Settlement, backend: Backend
) -> None:
    settlement.add(batch(1), sent_at=0.0)
    assert settle(settlement, backend, LONELY_LAGS * LAG_S - 70) == []
    (settled,) = settle(settlement, backend, LONELY_LAGS * LAG_S)
    assert (settled.absent, settled.is_proven) == ((0,), False)


def test_as_long_as_there_is_something_to_send_proof_is_waited_for(settlement: Settlement, backend: Backend) -> None:
    settlement.add(batch(1), sent_at=0.0)
    backend.now = LONELY_LAGS * LAG_S * 3
    assert settlement.settle(backend, backend.now, is_idle=False) == []
    settlement.accepted(batch(9), sent_at=backend.now)
    backend.shown_from = {9: 0.0}
    assert settle(settlement, backend, backend.now + LAG_S) == []
    (settled,) = settle(settlement, backend, backend.now + 2 * LAG_S)
    assert (settled.absent, settled.is_proven) == ((0,), True)


def test_while_a_batch_waits_for_proof_one_of_its_spans_is_looked_for_and_not_all(
    settlement: Settlement, backend: Backend
) -> None:
    settlement.add(Batch(parts=(), refs=tuple(ref(number, str(number)) for number in range(1, 100)), id=1), sent_at=0.0)
    settle(settlement, backend, LAG_S)
    assert [query.session_id for query in backend.queries] == ["1"]


def test_a_backend_that_shows_nothing_at_all_is_waited_for_longer(settlement: Settlement, backend: Backend) -> None:
    settlement.add(batch(1), sent_at=0.0)
    settlement.accepted(batch(9), sent_at=2 * LAG_S)
    assert settle(settlement, backend, LONELY_LAGS * LAG_S * 2) == []
    (settled,) = settle(settlement, backend, BEHIND_LAGS * LAG_S + 70)
    assert not settled.is_proven


def test_what_was_seen_is_known_to_the_settlement_that_takes_over(settlement: Settlement, backend: Backend) -> None:
    settlement.add(batch(1), sent_at=0.0)
    settlement.accepted(batch(9), sent_at=2 * LAG_S)
    backend.shown_from = {9: 2 * LAG_S}
    assert settle(settlement, backend, 3 * LAG_S) == []
    second = Settlement(LAG_S, settlement.witnesses)
    second.add(batch(1), sent_at=0.0)
    (settled,) = settle(second, backend, 4 * LAG_S)
    assert (settled.absent, settled.is_proven) == ((0,), True)


def test_a_backend_that_cannot_be_read_settles_nothing_and_loses_nothing(
    settlement: Settlement, backend: Backend
) -> None:
    settlement.add(batch(1), sent_at=0.0)
    backend.is_away = True
    with pytest.raises(BackendError):
        settle(settlement, backend, LAG_S)
    backend.is_away = False
    backend.shown_from = {1: 0.0}
    (settled,) = settle(settlement, backend, LAG_S)
    assert settled.absent == ()


def test_a_backend_that_asks_to_be_read_later_is_read_on_where_that_happened(
    settlement: Settlement, backend: Backend
) -> None:
    """However few questions it answers at once, each time something is settled."""
    for number in range(1, 6):
        settlement.add(batch(number), sent_at=0.0)
        backend.shown_from[number] = 0.0
    settled = []
    for _ in range(5):
        backend.answers = 2
        settled += settle(settlement, backend, LAG_S)
    assert [one.batch.id for one in settled] == [1, 2, 3, 4, 5]
    assert all(not query.is_patient for query in backend.queries), "sending must not wait for it"
    settlement.add(batch(6), sent_at=0.0)
    backend.answers = 0
    with pytest.raises(BusyBackendError):
        settle(settlement, backend, LAG_S)
    assert len(settlement) == 1


def test_a_batch_that_waits_long_is_not_asked_for_all_the_time(settlement: Settlement, backend: Backend) -> None:
    settlement.add(batch(1), sent_at=0.0)
    for second in range(0, 540):
        if settlement.next_look_s(second) == 0:
            settle(settlement, backend, float(second))
    assert len(backend.queries) < 15


def test_many_sessions_are_asked_for_by_one_window_and_few_by_name(backend: Backend) -> None:
    missing(backend, [ref(1, "a"), ref(2, "a"), ref(3, "b")], by_trace=False)
    assert [query.session_id for query in backend.queries] == ["a", "b"]
    backend.queries.clear()
    missing(backend, [ref(number, str(number)) for number in range(1, 9)], by_trace=False)
    (query,) = backend.queries
    assert query.session_id is None
    assert query.ids_only
    assert (query.start_ns, query.end_ns) == (0, 9_000_000_000)


def test_a_backend_that_hides_something_from_a_search_is_asked_by_trace_for_spans_and_witnesses(
    backend: Backend,
) -> None:
    settlement = Settlement(LAG_S, by_trace=True)
    backend.shown_from = {1: 0.0, 2: 0.0}
    settlement.add(batch(1), sent_at=0.0)
    settlement.accepted(batch(2), LAG_S)
    (settled,) = settle(settlement, backend, 2 * LAG_S)
    assert (settled.absent, settled.is_proven) == ((), True)
    asked = [(query.trace_ids, query.session_id, query.start_ns) for query in backend.queries]
    assert {query[0] for query in asked} == {(ref(1).trace_id,), (ref(2).trace_id,)}
    assert {query[1:] for query in asked} == {(None, None)}


def test_a_batch_that_is_shown_in_part_holds_up_no_other_and_is_decided_without_proof(backend: Backend) -> None:
    settlement = Settlement(LAG_S, by_trace=True)
    backend.shown_from = {2: 0.0, 3: 0.0}
    backend.partial = {1}
    settlement.add(batch(1), sent_at=0.0)
    settlement.add(batch(2), sent_at=0.0)
    settlement.accepted(batch(3), LAG_S)
    assert [one.batch.id for one in settle(settlement, backend, 2 * LAG_S)] == [2]
    backend.partial = {1, 3}
    assert settle(settlement, backend, 10 * LAG_S) == []
    (settled,) = settle(settlement, backend, BEHIND_LAGS * LAG_S)
    assert (settled.batch.id, settled.absent, settled.is_proven) == (1, (0,), False)


@settings(max_examples=examples(100))
@given(
    stored=st.lists(st.booleans(), min_size=1, max_size=12),
    answered=st.lists(st.booleans(), min_size=12, max_size=12),
    late_s=st.lists(st.floats(0, LAG_S), min_size=12, max_size=12),
    outage_s=st.floats(0, 100 * LAG_S),
    gaps_s=st.lists(st.floats(0, 5 * LAG_S), min_size=12, max_size=12),
)
def test_no_backend_that_stores_within_its_lag_or_behind_time_is_sent_anything_twice(
    stored: list[bool], answered: list[bool], late_s: list[float], outage_s: float, gaps_s: list[float]
) -> None:
    """In any rhythm; some requests are stored, some answered; for a time the backend is behind with everything."""
    backend, settlement = Backend(), Settlement(LAG_S)
    now, sent_twice, arrived = 0.0, [], []
    for number, is_stored in enumerate(stored, 1):
        now += gaps_s[number - 1]
        is_answered = answered[number - 1] and is_stored
        if is_stored:
            # behind with everything until the outage is over; in order up to a lag
            backend.shown_from[number] = max(now, outage_s) + late_s[number - 1]
            arrived.append(number)
        if is_answered:
            settlement.accepted(batch(number), now)
        else:
            settlement.add(batch(number), now)
        for settled in settle(settlement, backend, now):
            if settled.absent and settled.is_proven and settled.batch.id in arrived:
                sent_twice.append(settled.batch.id)
    while len(settlement):
        now += LAG_S / 3
        for settled in settle(settlement, backend, now):
            if settled.absent and settled.is_proven and settled.batch.id in arrived:
                sent_twice.append(settled.batch.id)
    assert sent_twice == []

"""A batch on which the backend fails while it serves others is taken apart, until the culprits stand alone."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import msgspec
import pytest

from tests.delivery.file_backend import FileBackend
from tests.delivery.rig import Rig, write_session
from tests.waiting import until
from tracebridge.delivery import poison
from tracebridge.delivery.backoff import Backoff
from tracebridge.delivery.poison import LAST_STRIKE, STRIKES
from tracebridge.delivery.records import Batch, SpanRef, Suspicion
from tracebridge.journal.opened import OpenedLog


def batch(spans: int, suspicion: Suspicion | None = None) -> Batch:
    refs = tuple(SpanRef(f"{n:032x}", f"{n:016x}", "s", n, 2) for n in range(spans))
    return Batch(parts=(b"x",) * spans, refs=refs, suspicion=suspicion or Suspicion())


def failed(suspect: Batch, *served: int, only_suspects: bool = False) -> Batch:
    """The batch after as many failures, with so many requests served before each."""
    for number in served:
        held = poison.struck(suspect, "500", served=number, only_suspects=only_suspects, only_halves=only_suspects)
        suspect = msgspec.structs.replace(suspect, suspicion=held)
    return suspect


@pytest.mark.parametrize("spans", [1, 8])
def test_a_backend_that_is_down_makes_nothing_suspect_however_long(spans: int) -> None:
    assert not poison.is_poisoned(failed(batch(spans), *[7] * 50))


@pytest.mark.parametrize(("spans", "strikes"), [(1, LAST_STRIKE), (8, STRIKES)])
def test_a_batch_is_poisoned_once_the_backend_has_failed_on_it_often_enough_with_others_served_in_between(
    spans: int, strikes: int
) -> None:
    assert not poison.is_poisoned(failed(batch(spans), *range(1, strikes)))
    assert poison.is_poisoned(failed(batch(spans), *range(1, strikes + 1)))


def test_with_nothing_else_to_send_a_batch_is_taken_apart_and_a_single_span_is_not_given_up() -> None:
    assert poison.is_poisoned(failed(batch(8), 5, 5, 5, only_suspects=True))
    assert not poison.is_poisoned(failed(batch(1), *[5] * 50, only_suspects=True))


def test_a_half_is_taken_apart_after_one_more_strike_and_not_after_one_more_failure() -> None:
    half = poison.half_under_suspicion(batch(4, Suspicion(strikes=3, since=1, served=3)))
    assert poison.is_poisoned(failed(half, 4))
    assert not poison.is_poisoned(failed(half, 3, 3, 3))


def test_a_single_span_that_is_left_of_a_batch_is_given_up_only_if_something_was_served_since_the_trouble_began() -> (
    None
):
    single = poison.half_under_suspicion(batch(1, Suspicion(strikes=3, since=3, served=3)))
    assert not poison.is_poisoned(failed(single, *[3] * 50, only_suspects=True))
    assert not poison.is_poisoned(failed(single, *[4] * (LAST_STRIKE - 1), only_suspects=True))
    assert poison.is_poisoned(failed(single, *[4] * LAST_STRIKE, only_suspects=True))


@pytest.mark.parametrize("readable", [pytest.param(True, marks=pytest.mark.slow), False])
def test_several_batches_with_nothing_else_to_send_are_taken_apart_all_the_same(tmp_path: Path, readable: bool) -> None:
    """Each holds what the backend breaks on, so that it serves nothing at all before they are."""
    rig = Rig(tmp_path, FileBackend(readable=readable, max_request_spans=7))
    rig.backend.answers.breaks_on = {"poison"}
    for name in "abc":
        write_session(rig.trace_dir, name, turns=3, tool="poison")
    rig.ship(backoff=Backoff(first_s=0.002, longest_s=0.01))
    assert len(rig.dead()) == 9
    assert rig.stored_names() == sorted(f"{name}/{kind}" for name in "abc" for kind in ["session", *["turn"] * 3])
    assert rig.account().unaccounted_events == 0


def test_a_span_that_was_sent_alone_and_waits_keeps_no_culprit_from_being_given_up(tmp_path: Path) -> None:
    rig = Rig(tmp_path, FileBackend(readable=False, max_request_spans=8))
    rig.backend.answers.breaks_on = {"poison", "session"}
    write_session(rig.trace_dir, "a", turns=0)
    shipper = rig.shipper(Backoff(first_s=0.002, longest_s=0.01))
    until(lambda: shipper.round().wait_s >= 0 and bool(shipper.trouble), "the backend has failed on it")
    events = write_session(rig.trace_dir, "b", turns=9, tool="poison", end=False)
    OpenedLog(rig.trace_dir).append(events.parent.name)
    rounds = count(2)
    until(lambda: shipper.round(next(rounds)).wait_s >= 0 and len(rig.dead()) == 9, "the culprits are given up")
    shipper.close()
    assert {letter.ref.session_id for letter in rig.dead()} == {"b"}
    assert rig.account().in_flight_spans == 1


@pytest.mark.parametrize("readable", [pytest.param(True, marks=pytest.mark.slow), False])
def test_a_span_on_which_the_backend_breaks_becomes_a_dead_letter_and_its_neighbours_arrive(
    tmp_path: Path, readable: bool
) -> None:
    rig = Rig(tmp_path, FileBackend(readable=readable, max_request_spans=8))
    rig.backend.answers.breaks_on = {"poison"}
    write_session(rig.trace_dir, "a", turns=9)
    write_session(rig.trace_dir, "b", turns=2, tool="poison")
    write_session(rig.trace_dir, "c", turns=9)
    rig.ship(backoff=Backoff(first_s=0.01, longest_s=0.02), seconds=40)
    assert {(letter.ref.session_id, letter.reason) for letter in rig.dead()} == {
        ("b", "the backend failed on it 8 times while it took others: HTTP 500: it broke")
    }
    assert len(rig.dead()) == 2
    expected = [f"{name}/{kind}" for name in "ac" for kind in ["session", *["tool", "turn"] * 9]]
    assert rig.stored_names() == sorted([*expected, "b/session", "b/turn", "b/turn"])


def test_what_is_held_against_a_batch_outlives_the_shipper(tmp_path: Path) -> None:
    rig = Rig(tmp_path, FileBackend(readable=False))
    rig.backend.answers.breaks_on = {"poison"}
    write_session(rig.trace_dir, "a", turns=1, tool="poison")
    shipper = rig.shipper()
    until(lambda: shipper.round().is_done or len(rig.backend.answers.requests) == 1, "one request came")
    until(lambda: shipper.round().is_done or bool(shipper.trouble), "it has failed")
    shipper.close()
    state = rig.state()
    (left,) = state.in_flight(1)
    state.close()
    assert (left.suspicion.strikes, left.suspicion.failure) == (1, "HTTP 500: it broke")


def test_a_backend_that_is_down_for_long_makes_no_dead_letters(tmp_path: Path) -> None:
    rig = Rig(tmp_path, FileBackend(readable=False, max_request_spans=4))
    write_session(rig.trace_dir, "a", turns=6)
    rig.backend.answers.is_down = True
    shipper = rig.shipper(Backoff(first_s=0.001, longest_s=0.002))
    until(lambda: shipper.round().is_done or len(rig.backend.answers.requests) >= 30, "it was tried often")
    rig.backend.answers.is_down = False
    until(lambda: shipper.round().is_done, "everything is delivered")
    shipper.close()
    assert rig.dead() == []
    assert len(rig.stored_names()) == 13

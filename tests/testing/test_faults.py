from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracebridge.testing import Fault, FaultError, FaultPlan, Faults

ROUTE = "POST /v1/traces"


def struck(fault: Fault, requests: int, route: str = ROUTE) -> list[int]:
    faults = Faults([fault])
    return [number for number in range(1, requests + 1) if faults.decide(route) is not None]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault(), [1, 2, 3, 4, 5, 6]),
        (Fault(first=2), [1, 2]),
        (Fault(every=3), [3, 6]),
        (Fault(times=1), [1]),
        (Fault(every=2, times=2), [2, 4]),
        (Fault(probability=0.0), []),
        (Fault(probability=1.0), [1, 2, 3, 4, 5, 6]),
        (Fault(route="GET *"), []),
        (Fault(route="POST /v1/*"), [1, 2, 3, 4, 5, 6]),
    ],
)
def test_a_fault_strikes_the_requests_it_names(fault: Fault, expected: list[int]) -> None:
    assert struck(fault, 6) == expected


@given(seed=st.integers(), probability=st.floats(0, 1))
def test_chance_is_the_same_for_the_same_seed(seed: int, probability: float) -> None:
    fault = Fault(probability=probability, seed=seed)
    assert struck(fault, 50) == struck(fault, 50)


def test_chance_strikes_about_its_share_and_differs_by_seed() -> None:
    one, other = (struck(Fault(probability=0.3, seed=seed), 1000) for seed in (1, 2))
    assert 230 < len(one) < 370
    assert one != other


def test_the_first_fault_that_strikes_is_applied_and_all_count_the_request() -> None:
    faults = Faults([Fault(status=503, first=2), Fault(status=500, every=3)])
    decided = [fault.status if (fault := faults.decide(ROUTE)) else None for _ in range(4)]
    assert decided == [503, 503, 500, None]
    assert faults.struck == (2, 1)


def test_routes_are_counted_per_fault() -> None:
    faults = Faults([Fault(route="GET *", first=1)])
    assert faults.decide("POST /a") is None
    assert faults.decide("GET /a") is not None
    assert faults.decide("GET /b") is None


@given(
    st.lists(
        st.builds(
            Fault,
            route=st.text(),
            first=st.none() | st.integers(1),
            probability=st.none() | st.floats(0, 1),
            latency_s=st.floats(0, 10),
            status=st.none() | st.integers(400, 599),
            headers=st.dictionaries(st.text(), st.text()),
            reset=st.sampled_from([None, "before", "after"]),
            hang=st.booleans(),
        )
    )
)
def test_a_plan_survives_json(faults: list[Fault]) -> None:
    plan = FaultPlan(faults=tuple(faults))
    assert FaultPlan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("{", "truncated"),
        ('{"faults": [{"first": 0}]}', "first is 0"),
        ('{"faults": [{"probability": 2}]}', "probability is 2"),
        ('{"faults": [{"status": 200}]}', "status is 200"),
        ('{"faults": [{"latency_s": -1}]}', "negative"),
        ('{"faults": [{"reset": "later"}]}', "later"),
        ('{"faults": [{"stauts": 500}]}', "stauts"),
    ],
)
def test_a_wrong_plan_is_refused_saying_what_is_wrong(text: str, what: str) -> None:
    with pytest.raises(FaultError, match=what):
        FaultPlan.from_json(text)


def test_release_lets_every_held_request_go() -> None:
    faults = Faults()
    held = [faults.hold(), faults.hold()]
    assert faults.held == 2
    faults.release()
    assert [future.done() for future in held] == [True, True]
    assert faults.held == 0
    assert not faults.hold().done()


def test_clearing_the_plan_releases_and_forgets() -> None:
    faults = Faults([Fault(hang=True)])
    held = faults.hold()
    faults.clear()
    assert held.done()
    assert faults.plan == FaultPlan()
    assert faults.decide(ROUTE) is None


def test_no_request_is_counted_twice_or_lost_between_threads() -> None:
    faults = Faults([Fault(every=10)])
    decided: list[bool] = []

    def ask() -> None:
        decided.extend(faults.decide(ROUTE) is not None for _ in range(500))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(decided) == 200


def test_a_fault_counts_only_the_bodies_that_it_names() -> None:
    faults = Faults([Fault(body_contains="poison", every=2), Fault(over_bytes=10, times=1)])
    bodies = [b"poison", b"x", b"a poison", b"long enough for it", b"longer than that", b"poison"]
    assert [faults.decide(ROUTE, body) is not None for body in bodies] == [False, False, True, True, False, False]
    assert faults.looks_into_bodies
    assert not Faults([Fault(status=503)]).looks_into_bodies

"""A process is killed at each of its system calls in turn; the next one finds and delivers everything, once."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.durability import recovery
from tests.durability.conftest import CountedServer
from tests.durability.killing import Ended, Killer
from tests.durability.place import Backend, Place
from tests.durability.recovery import Owed
from tests.durability.scenarios import AGENT, BACKFILL, SHIPPER, SPOOL, WRITER, Scenario
from tests.workplace import INGESTION
from tracebridge.testing import Fault

LANGFUSE_ROUTE, _ = INGESTION
LAG_S = 0.04
DECLARED_LAG_S = 0.05
"""What a sink declares whose backend shows things after `LAG_S`."""
LEAST_DECLARED_LAG_S = 0.02
"""What the others declare: a request that a dead client has sent may still be on its way into the store."""
SAMPLES = 5
"""How many system calls of a run are tried where time is short; elsewhere each time."""
MANY_SAMPLES = 75
"""The same where it is not, unless `--every-call` is given."""
ENDED_BY_THEMSELVES = 3
"""So many runs in a row must have come to their end before the call at which they were to be killed."""
MOST_FAILURES = 10
"""After which no more calls are tried."""


class Case(NamedTuple):
    name: str
    scenario: Scenario
    backend: Backend
    lag_s: float = 0.0
    """After which the backend shows what it has stored."""
    dies_again: bool = False
    """Whether the next process is killed too, anywhere."""


CASES = (
    Case("writer", WRITER, "langfuse"),
    Case("shipper", SHIPPER, "langfuse"),
    Case("shipper-lag", SHIPPER, "langfuse", LAG_S),
    Case("shipper-twice", SHIPPER, "langfuse", dies_again=True),
    Case("shipper-otel", SHIPPER, "otel"),
    Case("shipper-no-reader", SHIPPER, "ledger"),
    Case("agent", AGENT, "langfuse"),
    Case("agent-lag", AGENT, "langfuse", LAG_S),
    Case("backfill", BACKFILL, "langfuse"),
    Case("spool", SPOOL, "langfuse"),
)

each_case = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])


class Trials:
    """The place where a case runs again and again, killed at one number after the other."""

    def __init__(self, case: Case, folder: Path, killer: Killer, counted: CountedServer, authority: Path) -> None:
        self._case = case
        self._folder = folder
        self._killer = killer
        self._counted = counted
        self._authority = authority
        self._longest = 0
        if case.lag_s:
            counted.server.faults.add(Fault(route=LANGFUSE_ROUTE, visibility_lag_s=case.lag_s))

    def calls(self) -> int:
        """How many system calls a run takes that nobody kills."""
        ended = self.check(0)
        assert not ended.was_killed
        return ended.calls

    def check(self, kill_at: int) -> Ended:
        """Kill one run, see to it that the next process finds everything, and check that."""
        place = self._place(kill_at)
        place.folder.mkdir()
        try:
            ended = self._check(place, kill_at)
        except BaseException:
            self._counted.new_copies()  # so that they do not count as the next one's
            raise
        shutil.rmtree(place.folder)
        return ended

    def _check(self, place: Place, kill_at: int) -> Ended:
        case = self._case
        case.scenario.prepare(place)
        owed = Owed(place)
        owed.note()
        ended = self._run(place, kill_at)
        if case.scenario.records:
            recovery.check_what_was_recorded(place)
        if case.dies_again:
            self._run(place, random.randint(1, self._longest))
        recovery.recover(place, owed)
        spans = owed.spans()
        account = recovery.check_the_account(place, spans)
        if case.backend == "ledger":
            recovery.check_that_repeats_are_identical_and_counted(place, spans, account)
        else:
            recovery.check_that_each_is_stored_once(spans, self._counted.new_copies())
            recovery.check_that_nothing_is_found(place)
        if case.scenario.afterwards is not None:
            case.scenario.afterwards(place)
        return ended

    def _run(self, place: Place, kill_at: int) -> Ended:
        ended = self._killer.run(self._case.scenario.run, place.to_json(), kill_at=kill_at)
        assert not ended.timed_out
        assert ended.was_killed or ended.exit_code == 0, self._killer.log()
        self._longest = max(self._longest, ended.calls)
        return ended

    def check_that_nothing_came_late(self) -> None:
        assert not self._counted.new_copies()

    def _place(self, kill_at: int) -> Place:
        return Place(
            folder=self._folder / str(kill_at),
            prefix=f"{self._case.name}-{kill_at}",
            backend=self._case.backend,
            url=self._counted.server.url,
            authority=str(self._authority),
            lag_s=DECLARED_LAG_S if self._case.lag_s else LEAST_DECLARED_LAG_S,
            delivery="thread" if self._case.scenario is AGENT else "external",
        )


class Failures:
    """What failed at which call; a few are gathered, as one alone seldom tells why."""

    def __init__(self) -> None:
        self._texts: list[str] = []

    @contextmanager
    def of(self, number: int) -> Iterator[None]:
        try:
            yield
        except AssertionError as error:
            self._texts.append(f"killed at call {number}: {error}")
            if len(self._texts) >= MOST_FAILURES:
                self.none()

    def none(self) -> None:
        if self._texts:
            pytest.fail("\n\n".join(self._texts), pytrace=False)

    def __str__(self) -> str:
        return f"{len(self._texts)} failures"


@pytest.fixture
def trials(case: Case, tmp_path: Path, killer: Killer, counted: CountedServer, authority: Path) -> Trials:
    return Trials(case, tmp_path, killer, counted, authority)


@each_case
def test_a_process_that_is_killed_at_one_of_its_system_calls_loses_and_repeats_nothing(trials: Trials) -> None:
    calls = trials.calls()
    # spread over the run, elsewhere each time
    step = max(1, calls // SAMPLES)
    numbers = range(random.randint(1, step), calls + 1, step)
    print(f"killed at {list(numbers)} of {calls} system calls")
    failures = Failures()
    for number in numbers:
        with failures.of(number):
            trials.check(number)
    failures.none()
    trials.check_that_nothing_came_late()


@pytest.mark.slow
@pytest.mark.timeout(3600)
@each_case
def test_a_process_that_is_killed_at_any_of_its_system_calls_loses_and_repeats_nothing(
    trials: Trials, pytestconfig: pytest.Config
) -> None:
    step = 1 if pytestconfig.getoption("--every-call") else max(1, trials.calls() // MANY_SAMPLES)
    began = time.monotonic()
    failures = Failures()
    ended_by_themselves = runs = 0
    number = -random.randrange(step)
    while ended_by_themselves < ENDED_BY_THEMSELVES:
        number += step
        runs += 1
        with failures.of(number):
            ended = trials.check(number)
            ended_by_themselves = 0 if ended.was_killed else ended_by_themselves + 1
    seconds = time.monotonic() - began
    print(f"killed at {runs} of {number} system calls, {1000 * seconds / runs:.0f} ms each: {failures}")
    failures.none()
    trials.check_that_nothing_came_late()

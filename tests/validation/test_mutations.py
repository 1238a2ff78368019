"""Whatever is wrong with what a backend holds is found, classed and counted, alone and together with anything else."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from tests.validation.mutations.bench import Backend, Bench, counts_of, drawn, impatient
from tests.validation.mutations.defects import DEFECTS
from tracebridge.devserver import DevServer

BACKENDS = get_args(Backend)


@pytest.fixture(scope="module")
def server() -> Iterator[DevServer]:
    with DevServer() as running, impatient():
        yield running


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_clean_copy_gives_no_finding_at_all(tmp_path: Path, server: DevServer, backend: Backend) -> None:
    verdict = Bench(tmp_path, server, backend).verdict()
    assert (verdict.exit_code, verdict.counts, verdict.equal) == (0, {}, 35)


@pytest.mark.parametrize("backend", BACKENDS)
def test_all_kinds_of_defect_at_once_are_each_found_classed_and_counted(
    tmp_path: Path, server: DevServer, backend: Backend
) -> None:
    """One after the other as long as spans are left that no other one has touched, and the rest the next time."""
    left = list(DEFECTS)
    while left:
        bench = Bench(tmp_path / str(len(left)), server, backend)
        free = {name: list(spans) for name, spans in bench.sessions.items()}
        planted = []
        for defect in list(left):
            for name, spans in free.items():
                whole = len(spans) == len(bench.sessions[name])
                candidates = [span for span in spans if defect.concerns(span)]
                if not candidates or (defect.takes_session and not whole):
                    continue
                planted.append(defect.plant(spans, candidates[0], random.Random(1)))
                free[name] = [] if defect.takes_session else [span for span in spans if span is not candidates[0]]
                left.remove(defect)
                break
        assert planted
        bench.plant(planted)
        verdict = bench.verdict()
        assert verdict.counts == counts_of(planted)
        for one in planted:
            concerned = [found for found in verdict.findings if (found.trace_id, found.span_id) in one.span_ids]
            assert one.is_found(concerned), (one, concerned)


def random_combination(folder: Path, server: DevServer, backend: Backend, seed: int) -> None:
    bench = Bench(folder, server, backend)
    combination = drawn(bench.sessions, random.Random(seed))
    bench.plant(planted for _, planted in combination)
    verdict = bench.verdict()
    names = [defect.name for defect, _ in combination]
    assert verdict.counts == counts_of(planted for _, planted in combination), (seed, names)
    for defect, planted in combination:
        concerned = [found for found in verdict.findings if (found.trace_id, found.span_id) in planted.span_ids]
        assert planted.is_found(concerned), (seed, defect.name, concerned)
    assert verdict.exit_code == (1 if set(verdict.counts) - {"foreign"} else 0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", range(2))
def test_a_random_combination_of_defects_is_found(
    tmp_path: Path, server: DevServer, backend: Backend, seed: int
) -> None:
    random_combination(tmp_path, server, backend, seed)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("backend", BACKENDS)
def test_forty_random_combinations_of_defects_are_found(tmp_path: Path, server: DevServer, backend: Backend) -> None:
    first = random.SystemRandom().randrange(2**32)
    for seed in range(first, first + 40):
        random_combination(tmp_path / str(seed), server, backend, seed)

"""Trials against backends at a socket."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest

from tests.outcomes.backend import HttpBackend, Kept, Rule
from tests.outcomes.trial import PATIENT_S, Trial, otel
from tracebridge.config import SinkSettings
from tracebridge.devserver import DevServer

TrialWith = Callable[[SinkSettings, Kept], Trial]


class HttpTrial(Protocol):
    """Makes the trial of an `otel` sink over HTTP against a backend that answers by a rule."""

    def __call__(self, rule: Rule, *, timeout: float = PATIENT_S) -> tuple[Trial, HttpBackend]: ...


@pytest.fixture
def trial_with(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[TrialWith]:
    """Makes the trial of a sink and a backend; at the end none of it may have told the credentials."""
    trials = []

    def make(sink: SinkSettings, backend: Kept) -> Trial:
        trials.append(Trial(tmp_path, sink, backend, caplog))
        return trials[-1]

    yield make
    for trial in trials:
        trial.close()
        trial.assert_keeps_secrets()


@pytest.fixture
def http_trial(trial_with: TrialWith) -> Iterator[HttpTrial]:
    with ExitStack() as stack:

        def make(rule: Rule, *, timeout: float = PATIENT_S) -> tuple[Trial, HttpBackend]:
            backend = HttpBackend(rule)
            url = stack.enter_context(backend.serving())
            return trial_with(otel(url, timeout=timeout), backend), backend

        yield make


@pytest.fixture(scope="module")
def running() -> Iterator[DevServer]:
    """One development backend for a module: starting and stopping take longer than most of its tests."""
    with DevServer() as server:
        yield server


@pytest.fixture
def devserver(running: DevServer) -> DevServer:
    """An empty development backend."""
    running.clear()
    return running

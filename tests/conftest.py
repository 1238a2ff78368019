"""Fixtures that several parts' tests share."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests.examples import examples
from tests.waiting import grace_s
from tracebridge.threads import BackgroundThread

if TYPE_CHECKING:
    from tracebridge.devserver import DevServer

settings.register_profile(
    "default", max_examples=examples(30), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile("default")


@pytest.fixture(autouse=True)
def _no_thread_outlives_its_test() -> Iterator[None]:
    """What is asked to stop stops soon, and until then it may still log, which is no business of the next test's."""
    before = threading.enumerate()
    yield
    deadline = time.monotonic() + grace_s()
    for thread in threading.enumerate():
        # one that a test has left hanging stays so
        if isinstance(thread, BackgroundThread) and thread not in before:
            thread.join(max(0.0, deadline - time.monotonic()))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real runs and recorded exchanges beside the checkout."""
    folder = Path(__file__).resolve().parent.parent.parent / "shared"
    if not (folder / "recorded").is_dir():
        pytest.skip("needs the folder ../shared beside the checkout")
    return folder


@pytest.fixture(scope="session")
def legacy_traces(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 real runs as a folder of session traces in the original format. Tests must not write to it."""
    folder = tmp_path_factory.mktemp("legacy")
    maker, runs = shared / "tools" / "make_legacy_traces.py", shared / "data" / "airline" / "trajectories.jsonl"
    subprocess.run([sys.executable, maker, runs, folder], check=True, capture_output=True)
    return folder


@pytest.fixture
def devserver() -> Iterator[DevServer]:
    """An empty development backend of its own, with OTLP/gRPC, on free ports."""
    from tracebridge.devserver import DevServer  # its packages are an extra: other tests must run without

    with DevServer(grpc_port=0) as server:
        yield server

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.recording.rig import Recording
from tracebridge.log import log


class OutsideOfARequest(logging.Filter):
    """As those are that add something of the current web request to each record."""

    def filter(self, record: logging.LogRecord) -> bool:
        raise RuntimeError("Working outside of request context")


@pytest.fixture
def raising_filter() -> Iterator[logging.Filter]:
    raising = OutsideOfARequest()
    logger = logging.getLogger("tracebridge")
    logger.addFilter(raising)
    yield raising
    logger.removeFilter(raising)


@pytest.mark.usefixtures("raising_filter")
def test_a_log_that_raises_reaches_nobody() -> None:
    log.error("trouble %d", 1)
    log.warning("trouble", exc_info=ValueError("x"))


@pytest.mark.usefixtures("raising_filter")
def test_trouble_whose_telling_raises_does_not_reach_the_agent(tmp_path: Path) -> None:
    (tmp_path / "traces").write_text("in the way")
    recording = Recording(tmp_path, on_error=None)

    with recording.session() as session, recording.turn(session):
        session.log_thinking("x")

    assert recording.tracer.trouble.counts["journal: ENOTDIR"] == 5


def test_a_record_names_the_place_that_it_comes_from(caplog: pytest.LogCaptureFixture) -> None:
    log.warning("trouble")

    [record] = caplog.records
    assert (record.name, record.filename, record.funcName) == (
        "tracebridge",
        "test_log.py",
        "test_a_record_names_the_place_that_it_comes_from",
    )

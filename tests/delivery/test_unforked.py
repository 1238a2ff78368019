from __future__ import annotations

import sys
import threading
from types import FrameType

import pytest

from tests.forking import in_child
from tests.waiting import until
from tracebridge.delivery import unforked as module
from tracebridge.delivery.unforked import unforked

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def names_of(frame: FrameType | None) -> list[str]:
    """The functions that a thread is in."""
    return [] if frame is None else [frame.f_code.co_name, *names_of(frame.f_back)]


def test_a_fork_waits_for_the_block_of_another_thread_and_goes_on_in_its_own() -> None:
    log: list[str] = []
    entered = threading.Event()
    forking = threading.get_ident()

    def work() -> None:
        with unforked():
            entered.set()
            until(lambda: "begin" in names_of(sys._current_frames()[forking]), "the fork waits")
            log.append("over")

    thread = threading.Thread(target=work)
    thread.start()
    entered.wait()
    assert in_child(lambda: " ".join(log)) == "over"
    thread.join()
    with unforked():
        assert in_child(lambda: " ".join(log)) == "over"


def test_a_block_that_does_not_end_holds_up_no_other_block_and_no_second_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FORK_WAIT_S", 0.01)
    entered, forked = threading.Event(), threading.Event()

    def work() -> None:
        with unforked():
            entered.set()
            forked.wait()

    thread = threading.Thread(target=work)
    thread.start()
    entered.wait()
    with unforked():
        assert in_child(lambda: "forked") == "forked"
    # a second wait would not end in the time of a test
    monkeypatch.setattr(module, "FORK_WAIT_S", 3600.0)
    assert in_child(lambda: "forked again") == "forked again"
    forked.set()
    thread.join()
    with unforked():
        assert in_child(lambda: "forked") == "forked"

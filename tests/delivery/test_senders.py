"""Requests go out from threads that end when nobody has any use for them."""

from __future__ import annotations

import gc
import threading

import pytest

from tests.waiting import until
from tracebridge.delivery.senders import Senders
from tracebridge.sink import Outcome, Receipt


def threads(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(name)]


def accept(request: bytes) -> Receipt:
    return Receipt(outcome=Outcome.ACCEPTED, message=request.decode())


@pytest.mark.parametrize("closed", [True, False], ids=["closed", "forgotten"])
def test_its_threads_end_when_it_is_closed_or_forgotten(closed: bool) -> None:
    name = f"senders-{closed}"
    senders = Senders(3, name)
    assert senders.submit(accept, b"sent").result(10).message == "sent"
    assert len(threads(name)) == 3
    if closed:
        senders.close()
    del senders
    gc.collect()
    until(lambda: not threads(name), "its threads end")


def test_what_a_sink_raises_is_the_requests_own() -> None:
    def refuse(request: bytes) -> Receipt:
        raise RuntimeError(request.decode())

    senders = Senders(1, "raising")
    with pytest.raises(RuntimeError, match="first"):
        senders.submit(refuse, b"first").result(10)
    assert senders.submit(accept, b"second").result(10).message == "second"
    senders.close()

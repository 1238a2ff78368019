from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.delivery.file_backend import FileBackend, FileSink
from tests.delivery.rig import Rig, write_session
from tests.waiting import until
from tracebridge.delivery.backoff import Backoff
from tracebridge.delivery.health import Health
from tracebridge.delivery.records import Condition
from tracebridge.sink import Outcome, Receipt

REFUSALS = {
    "paused": Receipt(outcome=Outcome.UNAUTHORIZED, message="no such key"),
    "backing off": Receipt(outcome=Outcome.RETRY, message="come later", retry_after_s=3600.0),
}


@pytest.mark.parametrize("state", REFUSALS)
def test_what_was_asked_before_the_trouble_does_not_make_the_backend_work_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, state: str
) -> None:
    """Of requests that are out together one is refused, and another is taken after that."""
    rig = Rig(tmp_path, FileBackend(readable=False, max_request_spans=5))
    deliver, refused, requests = FileSink.deliver, threading.Event(), iter(range(100))

    def one_is_refused(sink: FileSink, request: bytes) -> Receipt:
        match next(requests):
            case 1:
                return REFUSALS[state]
            case 2:
                assert refused.wait(30)
        return deliver(sink, request)

    monkeypatch.setattr(FileSink, "deliver", one_is_refused)
    write_session(rig.trace_dir, "a", turns=30)
    shipper = rig.shipper()
    until(lambda: shipper.round() is not None and bool(shipper.trouble), "it is in trouble")
    refused.set()
    until(lambda: shipper.round() is not None and rig.account().in_flight_spans == 5, "the others are taken")
    assert shipper.trouble == REFUSALS[state].message
    assert shipper.round().wait_s > 200
    condition = rig.account().condition
    shipper.close()
    assert isinstance(condition, Condition)
    assert (condition.state, condition.detail) == (state, REFUSALS[state].message)
    assert condition.until_ns > 0
    assert not [record for record in caplog.records if record.getMessage().endswith("works again")]


def test_the_backend_works_again_once_it_has_answered_what_it_was_asked_after_the_trouble() -> None:
    said: list[str] = []
    health = Health("file", Backoff(first_s=0.001, longest_s=0.001), lambda state, *_: said.append(state))
    health.failed("busy")
    until(lambda: not health.is_held_back, "it may be asked again")
    health.accepted()
    assert (health.trouble, health.is_trusted) == ("", True)
    assert said == ["backing off", "shipping"]

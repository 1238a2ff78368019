"""What was recorded lately is compared beside the shipping, told once, and never keeps anybody from shipping."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from tests.delivery.file_backend import FileBackend, stored
from tests.delivery.rig import TAILS, Rig, end_with, write_session
from tests.waiting import until
from tracebridge.delivery.evidence import Compared, Validation
from tracebridge.validation import Summary, validator
from tracebridge.validation.continuous import ContinuousValidation
from tracebridge.validation.sample import is_drawn


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path, FileBackend())


@contextmanager
def validating(rig: Rig, sample: float = 1.0) -> Iterator[ContinuousValidation]:
    continuous = ContinuousValidation(rig.settings, 0.01, sample)
    continuous.start()
    try:
        yield continuous
    finally:
        continuous.ask_to_stop()
        continuous.join(10)


def old_session(rig: Rig, name: str, **options: bool) -> Path:
    """One that nothing was written to for an hour."""
    events = write_session(rig.trace_dir, name, turns=1, **options)  # type: ignore[arg-type]
    then = time.time() - 3600
    os.utime(events, (then, then))
    return events


def compared(rig: Rig) -> dict[str, Compared]:
    state = rig.state()
    try:
        return {one.session: one for one in state.evidence.compared(1)}
    finally:
        state.close()


def validations(rig: Rig) -> list[Validation]:
    state = rig.state()
    try:
        return state.evidence.validations(1)
    finally:
        state.close()


def ended(rig: Rig) -> list[Validation]:
    return [one for one in validations(rig) if one.ended_ns]


def change_output(rig: Rig, session: str) -> None:
    spans = [
        msgspec.structs.replace(span, output="forged") if span.session_id == session and span.kind == "turn" else span
        for span in stored(rig.file)
    ]
    rig.file.write_bytes(b"".join(msgspec.json.encode(span) + b"\n" for span in spans))


def test_each_delivered_session_is_compared_once_and_again_when_it_grows(rig: Rig) -> None:
    events = old_session(rig, "a")
    old_session(rig, "b")
    rig.ship()
    with validating(rig):
        until(lambda: len(ended(rig)) >= 3, "it has looked three times")
        first = compared(rig)
        assert {name: (one.defects, one.spans) for name, one in first.items()} == {
            "session-a": (0, 3),
            "session-b": (0, 3),
        }
        assert first["session-a"].size == events.stat().st_size
        write_session(rig.trace_dir, "a", turns=1, run_id="run-2")
        then = time.time() - 3600
        os.utime(events, (then, then))
        rig.ship()
        until(lambda: compared(rig)["session-a"].size == events.stat().st_size, "it is compared anew")
        assert compared(rig)["session-b"] == first["session-b"], "nothing new was written there"
    scopes = {one.scope for one in validations(rig)}
    assert scopes == {'{"since_last":true}'}
    summaries = [msgspec.json.decode(one.summary, type=Summary) for one in ended(rig)]
    assert sorted(one.sessions for one in summaries)[-2:] == [1, 2]
    assert {one.exit_code for one in summaries} == {0}


def test_a_defect_is_told_once(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    old_session(rig, "a")
    old_session(rig, "b")
    rig.ship()
    change_output(rig, "b")
    with caplog.at_level(logging.ERROR, "tracebridge"), validating(rig):
        until(lambda: len(ended(rig)) >= 5, "it has looked five times")
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        "sink file does not show session b as it was recorded (1 different): see `tracebridge validate --sink file`"
    ]
    assert {name: one.defects for name, one in compared(rig).items()} == {"session-a": 0, "session-b": 1}


def test_a_session_id_adds_no_line_and_no_command_to_the_log(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    old_session(rig, "a\n2026-01-01 INFO all is well\x1b[2J")
    rig.ship()
    rig.file.write_text("")
    with caplog.at_level(logging.ERROR), validating(rig):
        until(lambda: bool(caplog.messages), "the defect is told")
    (told,) = caplog.messages
    assert "session a 2026-01-01 INFO all is well [2J as it was recorded" in told


def test_what_is_not_delivered_open_or_just_written_is_left_for_later(rig: Rig) -> None:
    old_session(rig, "open", end=False)
    write_session(rig.trace_dir, "just-written", turns=1)
    rig.ship()
    old_session(rig, "not-delivered")
    with validating(rig):
        until(lambda: len(ended(rig)) >= 2, "it has looked")
    assert compared(rig) == {}


@pytest.mark.parametrize("tail", TAILS.values(), ids=TAILS)
def test_a_session_with_half_a_line_at_its_end_is_compared_and_once(rig: Rig, tail: bytes) -> None:
    end_with(old_session(rig, "a"), tail)
    rig.ship()
    with validating(rig):
        until(lambda: len(ended(rig)) >= 3, "it has looked three times")
    assert set(compared(rig)) == {"session-a"}
    assert [msgspec.json.decode(one.summary, type=Summary).sessions for one in ended(rig)].count(1) == 1


def test_a_session_with_a_line_that_nobody_could_read_is_compared_once_and_is_not_clean(rig: Rig) -> None:
    end_with(old_session(rig, "a"), b'{"event_type":"turn.start"}\n')
    rig.ship()
    with validating(rig):
        until(lambda: len(ended(rig)) >= 3, "it has looked three times")
    assert compared(rig)["session-a"].defects == 1
    assert [msgspec.json.decode(one.summary, type=Summary).sessions for one in ended(rig)].count(1) == 1


def test_a_sample_is_compared_and_always_the_same(rig: Rig) -> None:
    for number in range(20):
        old_session(rig, f"s{number}")
    rig.ship()
    with validating(rig, sample=0.3):
        until(lambda: len(ended(rig)) >= 2, "it has looked twice")
    drawn = {f"session-s{number}" for number in range(20) if is_drawn(f"s{number}", 0.3)}
    assert compared(rig).keys() == drawn
    assert 0 < len(drawn) < 20
    assert json.loads(validations(rig)[0].scope) == {"sample": 0.3, "since_last": True}


def test_trouble_of_the_backend_is_told_once_and_is_no_validation(
    rig: Rig, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validator, "LEAST_PATIENCE_S", 0.0)
    old_session(rig, "a")
    rig.ship()
    rig.backend.answers.reader_is_away = True
    with caplog.at_level(logging.WARNING, "tracebridge"), validating(rig):
        until(lambda: len(validations(rig)) >= 3, "it has tried three times")
        assert ended(rig) == []
        rig.backend.answers.reader_is_away = False
        until(lambda: len(compared(rig)) == 1, "it is compared once the backend is back")
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 1
    assert told[0].startswith("sink file is not validated: the backend cannot be read")


def test_what_is_being_compared_ends_soon_when_the_process_ends(rig: Rig) -> None:
    for number in range(3):
        old_session(rig, f"s{number}")
    rig.ship()
    with validating(rig) as continuous:
        until(lambda: len(compared(rig)) > 0, "it has begun")
        continuous.ask_to_stop()
        continuous.join(5)
        assert not continuous._thread.is_alive()

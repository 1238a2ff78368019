"""Whatever a sink gives for a request, delivery goes on: what is no receipt is taken as UNKNOWN."""

from __future__ import annotations

import logging
from concurrent.futures import Future
from pathlib import Path

import pytest

from tests.delivery.file_backend import FileBackend, FileSink
from tests.delivery.rig import Rig, write_session
from tracebridge.delivery.backoff import Backoff
from tracebridge.delivery.receipts import receipt_of
from tracebridge.sink import Outcome, Receipt


def given(answer: object) -> Receipt:
    future: Future[Receipt] = Future()
    future.set_result(answer)  # type: ignore[arg-type]
    return receipt_of(future)


def raised(error: BaseException) -> Receipt:
    future: Future[Receipt] = Future()
    future.set_exception(error)
    return receipt_of(future)


DEFECTS = {
    "nothing": None,
    "a status": 200,
    "an outcome alone": Outcome.ACCEPTED,
    "an outcome that is none": Receipt(outcome="fine"),  # type: ignore[arg-type]
    "a count that is none": Receipt(outcome=Outcome.ACCEPTED, rejected=None),  # type: ignore[arg-type]
    "a delay that is none": Receipt(outcome=Outcome.RETRY, retry_after_s="soon"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("answer", DEFECTS.values(), ids=list(DEFECTS))
def test_what_is_no_receipt_is_unknown(answer: object) -> None:
    receipt = given(answer)
    assert receipt.outcome is Outcome.UNKNOWN
    assert receipt.message.startswith("the sink gave ")


def test_an_exception_is_unknown_with_its_words() -> None:
    assert raised(OSError("it broke")) == Receipt(outcome=Outcome.UNKNOWN, message="OSError: it broke")


class Untellable(Exception):
    def __str__(self) -> str:
        raise LookupError("its words are in no catalogue")


def test_what_has_no_words_is_told_by_its_name() -> None:
    words = "(it cannot be told: LookupError)"
    assert raised(Untellable()) == Receipt(outcome=Outcome.UNKNOWN, message=f"Untellable: {words}")
    receipt = Receipt(outcome=Outcome.REJECTED, message=Untellable())  # type: ignore[arg-type]
    assert given(receipt) == Receipt(outcome=Outcome.REJECTED, message=words)


@pytest.mark.parametrize("message", ["half \udc80 of it", None, b"\xff"])
def test_a_receipt_says_what_can_be_written_down_whatever_the_sink_says(message: str) -> None:
    receipt = given(Receipt(outcome=Outcome.REJECTED, message=message))
    assert receipt.outcome is Outcome.REJECTED
    assert receipt.message.encode() in (b"half ? of it", b"", b"b'\\xff'")


def test_what_a_sink_says_is_one_line_that_commands_no_terminal_and_is_not_long() -> None:
    said = "no\n2026-01-01 tracebridge: all is well\x1b[2J " + "x" * 100_000
    receipt = given(Receipt(outcome=Outcome.REJECTED, message=said))
    assert receipt.message.startswith("no 2026-01-01 tracebridge: all is well [2J xxx")
    assert len(receipt.message) <= 1_000
    assert raised(OSError("one\ntwo")).message == "OSError: one two"
    assert raised(OSError("all\u200f\u061c\u200b is well")).message == "OSError: all  is well"


@pytest.mark.parametrize("answer", DEFECTS.values(), ids=list(DEFECTS))
def test_a_span_for_which_the_sink_gives_no_receipt_holds_up_no_other(tmp_path: Path, answer: object) -> None:
    rig = Rig(tmp_path, FileBackend(readable=False, max_request_spans=4))
    rig.backend.answers.defects = {"odd": answer}
    write_session(rig.trace_dir, "a", turns=1, tool="odd")
    write_session(rig.trace_dir, "b", turns=6)
    rig.ship(backoff=Backoff(first_s=0.002, longest_s=0.01))
    (letter,) = rig.dead()
    assert letter.ref.session_id == "a"
    assert "the sink gave " in letter.reason
    assert rig.stored_names() == sorted(["a/session", "a/turn", "b/session", *["b/tool", "b/turn"] * 6])
    assert rig.account().unaccounted_events == 0


def test_an_acceptance_that_refuses_less_than_nothing_is_one(tmp_path: Path) -> None:
    rig = Rig(tmp_path, FileBackend(readable=False))
    rig.backend.answers.scripted = [Receipt(outcome=Outcome.ACCEPTED, rejected=-1)]
    write_session(rig.trace_dir, "a")
    rig.ship()
    assert rig.dead() == []


def test_a_refusal_whose_words_cannot_be_encoded_is_a_dead_letter(tmp_path: Path) -> None:
    rig = Rig(tmp_path, FileBackend())
    rig.backend.answers.defects = {"odd": Receipt(outcome=Outcome.REJECTED, message="no \udc80")}
    write_session(rig.trace_dir, "a", turns=1, tool="odd")
    rig.ship()
    assert [letter.reason for letter in rig.dead()] == ["no ?"]
    assert rig.stored_names() == ["a/session", "a/turn"]


def test_a_span_that_cannot_be_encoded_for_reasons_that_cannot_be_either_is_a_dead_letter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def encode(*_: object) -> bytes:
        raise OSError("no file \udc80")

    monkeypatch.setattr(FileSink, "encode", encode)
    # the trace of the error would stand in the test's report, which cannot be encoded with it
    monkeypatch.setattr(logging.getLogger("tracebridge"), "disabled", True)
    rig = Rig(tmp_path, FileBackend())
    write_session(rig.trace_dir, "a", turns=0)
    rig.ship()
    assert [letter.reason for letter in rig.dead()] == ["cannot be encoded: OSError: no file ?"]

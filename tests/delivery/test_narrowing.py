"""What was encoded and could not be sent yet leaves under the policy that is in force when it leaves."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.delivery.file_backend import FileBackend, stored
from tests.delivery.rig import Rig, write_session
from tracebridge.delivery.narrowing import JOURNAL_GONE
from tracebridge.journal import layout
from tracebridge.policy import Policy
from tracebridge.sink import Outcome, Receipt

NO_CONTENT = Policy(include_messages=False, include_thinking=False)
REFUSED = {
    "it is down": Receipt(outcome=Outcome.RETRY, message="503", retry_after_s=0.0),
    "its keys are wrong": Receipt(outcome=Outcome.UNAUTHORIZED, message="401"),
    "it does not answer": Receipt(outcome=Outcome.UNKNOWN, message="timed out"),
}


def ask_in_vain(rig: Rig, answer: Receipt = REFUSED["it is down"], session: str = "a") -> None:
    """Leave a request in flight that holds all of a session."""
    write_session(rig.trace_dir, session, turns=2)
    rig.backend.answers.scripted = [answer]
    shipper = rig.shipper()
    shipper.round()
    shipper.wait(50)
    shipper.round()
    shipper.close()
    assert rig.account().in_flight_spans == 5


def under(rig: Rig, policy: Policy) -> Rig:
    """The same folder and backend, with another policy."""
    return Rig(rig.trace_dir.parent, rig.backend, policy)


@pytest.mark.parametrize("readable", [True, False], ids=["readable", "not readable"])
@pytest.mark.parametrize("why", REFUSED)
def test_content_that_waits_is_not_sent_once_the_policy_leaves_it_out(tmp_path: Path, why: str, readable: bool) -> None:
    rig = Rig(tmp_path, FileBackend(readable=readable))
    ask_in_vain(rig, REFUSED[why])
    rig = under(rig, NO_CONTENT)
    rig.ship()
    said = {(str(span.input), str(span.output)) for span in stored(rig.file) if span.kind in ("turn", "tool")}
    assert said == {("None", "None")}
    assert rig.stored_names() == ["a/session", "a/tool", "a/tool", "a/turn", "a/turn"]
    assert rig.account().unaccounted_events == 0


def test_a_session_that_waits_is_not_sent_once_sampling_leaves_it_out(tmp_path: Path) -> None:
    rig = Rig(tmp_path, FileBackend())
    ask_in_vain(rig)
    rig = under(rig, Policy(sample_rate=0.0))
    rig.ship()
    assert rig.stored_names() == []
    account = rig.account()
    assert (account.in_flight_spans, account.unaccounted_events, account.counters["left_out_spans"]) == (0, 0, 5)


def test_under_a_wider_policy_the_bytes_that_wait_stay_as_they_are(tmp_path: Path) -> None:
    rig = Rig(tmp_path, FileBackend(), NO_CONTENT)
    ask_in_vain(rig)
    shutil.rmtree(layout.session_folder(rig.trace_dir, "a"))
    rig = under(rig, Policy())
    rig.ship()
    assert len(stored(rig.file)) == 5


def test_what_a_gone_journal_cannot_give_anew_is_dead_and_never_sent_as_it_was(tmp_path: Path) -> None:
    rig = Rig(tmp_path, FileBackend())
    ask_in_vain(rig)
    shutil.rmtree(layout.session_folder(rig.trace_dir, "a"))
    rig = under(rig, NO_CONTENT)
    rig.ship()
    assert [letter.reason for letter in rig.dead()] == [JOURNAL_GONE] * 5
    assert rig.stored_names() == []
    assert rig.account().unaccounted_events == 0


@pytest.mark.parametrize(
    ("policy", "is_gone"),
    [(NO_CONTENT, True), (Policy(sample_rate=0.0), False), (Policy(sample_rate=0.0), True)],
    ids=["its journal is gone", "sampled out", "sampled out and gone"],
)
def test_a_dead_letter_that_the_policy_leaves_out_now_is_not_sent_again(
    tmp_path: Path, policy: Policy, is_gone: bool
) -> None:
    rig = Rig(tmp_path, FileBackend())
    rig.backend.answers.poison = {"poison"}
    write_session(rig.trace_dir, "a", turns=1, tool="poison")
    rig.ship()
    (letter,) = rig.dead()
    if is_gone:
        shutil.rmtree(layout.session_folder(rig.trace_dir, "a"))
    rig.backend.answers.poison = set()
    state = rig.state()
    state.dead.retry([letter])
    state.close()
    rig = under(rig, policy)
    rig.ship()
    assert rig.dead() == [letter]
    assert rig.stored_names() == ["a/session", "a/turn"]

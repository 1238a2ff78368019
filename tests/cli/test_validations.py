"""`ship --follow --validate-every`, `validations` and `status`, as a person or a script sees them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.delivery.rig import write_session
from tests.waiting import until
from tests.workplace import Workplace, change_observation, langfuse
from tracebridge.devserver import DevServer


@pytest.fixture
def delivered(tmp_path: Path, devserver: DevServer) -> Workplace:
    workplace = Workplace(tmp_path / "here", {"langfuse": langfuse(devserver)}, delivery="external")
    for name in ("a", "b"):
        events = write_session(workplace.trace_dir, name, turns=1)
        then = time.time() - 3600
        os.utime(events, (then, then))
    assert workplace.call("ship").returncode == 0
    return workplace


def test_a_shipper_that_follows_validates_and_tells_what_it_finds_once(
    delivered: Workplace, devserver: DevServer
) -> None:
    assert delivered.call("validations").stdout == (
        f"nothing was validated yet\nlangfuse -> {devserver.url} as {devserver.public_key}: "
        "0 sessions were compared and are clean\n"
    )
    turn = next(span for span in delivered.observed("langfuse") if span.kind == "turn" and span.session_id == "a")
    change_observation(devserver, turn, output="forged")
    shipper = delivered.start("ship", "--follow", "--validate-every", "0.2s", stderr=subprocess.PIPE)
    try:
        until(lambda: len(listed(delivered)["validations"]) >= 3, "it has validated three times")
    finally:
        shipper.send_signal(signal.SIGTERM)
        _, said = shipper.communicate(timeout=20)
    assert shipper.returncode == 0
    assert said.count("does not show session a as it was recorded (1 different)") == 1

    told = listed(delivered)
    first = told["validations"][-1]
    assert first["scope"] == {"since_last": True}
    assert (first["summary"]["exit_code"], first["summary"]["sessions"]) == (1, 2)
    assert told["sinks"] == [
        {
            "sink": "langfuse",
            "endpoint": f"{devserver.url} as {devserver.public_key}",
            "clean": 1,
            "defective": ["session-a"],
        },
    ]
    printed = delivered.call("validations", "--sink", "langfuse", "--last", "99").stdout
    assert "FINDINGS, 2 sessions (since_last True)" in printed
    assert "  findings  session-a: see `tracebridge validate --sink langfuse`" in printed
    assert "findings  in 1 of 2 compared sessions" in delivered.call("status").stdout


def listed(workplace: Workplace) -> dict[str, list]:
    found: dict[str, list] = json.loads(workplace.call("validations", "--json").stdout)
    return found


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--validate-every", "15m"), "is of use with --follow only"),
        (("--follow", "--validate-sample", "5%"), "give that too"),
        (("--detach",), "is of use with --until-idle only"),
        (("--follow", "--detach"), "is of use with --until-idle only"),
        (("--follow", "--json"), "--json tells what one pass came to"),
        (("--until-idle", "--json"), "--json tells what one pass came to"),
        (("--follow", "--validate-every", "soon"), "'soon' is no age"),
        (("--follow", "--validate-every", "1m", "--validate-sample", "0"), "'0' is no share"),
        (("--follow", "--validate-every", "1m", "--validate-sample", "200%"), "'200%' is no share"),
    ],
)
def test_what_makes_no_sense_is_told(run: Run, arguments: tuple[str, ...], words: str) -> None:
    ran = run("ship", *arguments)
    assert ran.code == 2
    assert words in ran.err


def test_a_name_that_no_sink_has_or_had_is_no_sink_that_was_never_validated(run: Run, workplace: Workplace) -> None:
    ran = run("--config", workplace.config, "validations", "--sink", "langfuze")
    assert (ran.code, ran.out) == (2, "")
    assert "there is no sink called 'langfuze', and there was none (known: langfuse)" in ran.err
    assert run("--config", workplace.config, "validations", "--sink", "langfuse").out.startswith(
        "nothing was validated"
    )

"""Another project on the same server holds nothing of what this one was sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.workplace import Workplace
from tracebridge.devserver import DevServer

KEYS: dict[str, Any] = {"public_key": "pk-lf-another", "secret_key": "sk-lf-another"}


def sink(server: DevServer, **keys: Any) -> dict[str, Any]:
    known = {"public_key": server.public_key, "secret_key": server.secret_key, **keys}
    return {"host": server.url, "visibility_lag": 0.05, **known}


def test_a_sink_with_the_keys_of_another_project_starts_anew_and_sends_that_project_everything(tmp_path: Path) -> None:
    with DevServer() as first:
        workplace = Workplace(tmp_path, {"langfuse": sink(first)}, delivery="external")
        workplace.record("before")
        assert workplace.call("ship", "--patience", "10").returncode == 0
        port = int(first.url.rpartition(":")[2])
    with DevServer(port=port, **KEYS) as second:
        workplace.configure({"langfuse": sink(second, **KEYS)}, delivery="external")
        workplace.record("after")
        assert workplace.call("ship", "--patience", "10").returncode == 0
        validated = workplace.call("validate")
    assert validated.returncode == 0, validated.stdout
    assert "2 sessions" in validated.stdout

"""The entry point: what it declares, and that looking at it costs nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.langfuse.conftest import settings_of
from tracebridge.devserver import DevServer
from tracebridge.errors import MissingExtraError
from tracebridge.secret import Secret
from tracebridge.sink import Outcome
from tracebridge_langfuse.configuration import LangfuseSettings
from tracebridge_langfuse.factory import sink_type

SETTINGS = LangfuseSettings(host="http://user:pw@127.0.0.1:3000/", public_key="pk", secret_key=Secret("sk"))


def test_looking_at_the_sink_type_loads_no_vendor_package() -> None:
    program = """
import sys
from tracebridge.secret import Secret
from tracebridge_langfuse.factory import sink_type
settings = sink_type.settings(host="http://127.0.0.1:3000", public_key="pk", secret_key=Secret("sk"))
sink_type.capabilities(settings), sink_type.endpoint(settings), sink_type.environment
print(sorted({"langfuse", "httpx", "opentelemetry", "google", "pydantic"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": ":".join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_opening_a_reader_leaves_the_global_tracer_provider_alone(backend: DevServer) -> None:
    from opentelemetry import trace

    before = trace.get_tracer_provider()
    reader = sink_type.open_reader(settings_of(backend))
    reader.close()
    assert trace.get_tracer_provider() is before


def test_what_the_backend_does_is_declared() -> None:
    declared = sink_type.capabilities(SETTINGS)
    assert (declared.idempotent, declared.readable) == (False, True)
    assert declared.max_request_bytes < 5_000_000
    assert [loss.name for loss in declared.losses] == ["time-in-milliseconds", "media-by-reference"]


def test_the_endpoint_names_server_and_project_and_shows_no_credentials() -> None:
    assert sink_type.endpoint(SETTINGS) == f"http://127.0.0.1:3000 as {SETTINGS.public_key}"


def test_a_missing_package_is_named_with_the_extra_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    for module in ("reader", "api", "server_mode", "paging"):
        monkeypatch.delitem(sys.modules, f"tracebridge_langfuse.{module}", raising=False)
    with pytest.raises(MissingExtraError, match=r"pip install 'tracebridge\[langfuse\]'"):
        sink_type.open_reader(SETTINGS)


def test_the_agents_own_langfuse_package_is_neither_needed_nor_loaded(backend: DevServer) -> None:
    """Its versions ask for versions of OpenTelemetry that the agent may not have."""
    program = """
import sys
from tracebridge.secret import Secret
from tracebridge.sink import Query
from tracebridge_langfuse.factory import sink_type
url, public_key, secret_key = sys.argv[1:]
settings = sink_type.settings(host=url, public_key=public_key, secret_key=Secret(secret_key))
sink, reader = sink_type.open_sink(settings), sink_type.open_reader(settings)
assert sink.deliver(sink.join([])).outcome.value == "accepted"
assert list(reader.read(Query(session_id="none"))) == []
print(sorted({"langfuse", "pydantic", "opentelemetry.sdk", "opentelemetry.trace"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, backend.url, backend.public_key, backend.secret_key],
        env={"PYTHONPATH": ":".join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() in ("[]", "['opentelemetry.trace']")


def test_wrong_credentials_are_told_as_such(backend: DevServer) -> None:
    sink = sink_type.open_sink(settings_of(backend, secret_key=Secret("wrong")))
    receipt = sink.deliver(sink.join([]))
    sink.close()
    assert receipt.outcome is Outcome.UNAUTHORIZED
    assert "wrong" not in receipt.message


@pytest.mark.parametrize(
    "host", ["http://host:43l8", "http://host:65536", "http://[::1:3000", "http://:3000", "http://host:3000\n"]
)
def test_a_host_that_no_request_can_go_to_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match="host: expected http://host:port"):
        LangfuseSettings(host=host, public_key="pk", secret_key=Secret("sk"))


@pytest.mark.parametrize("host", ["http://host:3000/?key=hunter22", "http://host:3000#hunter22"])
def test_a_host_with_parameters_is_refused_without_telling_them(host: str) -> None:
    """It names the project in the state, in reports and in logs."""
    with pytest.raises(ValueError, match="host: expected an address without parameters") as caught:
        LangfuseSettings(host=host, public_key="pk", secret_key=Secret("sk"))
    assert "hunter22" not in str(caught.value)


def test_a_secret_key_in_the_place_of_the_public_one_is_refused_without_telling_it() -> None:
    with pytest.raises(ValueError, match="public_key: one that begins with sk-lf- is a secret key") as caught:
        LangfuseSettings(host="http://host", public_key="sk-lf-hunter22", secret_key=Secret("pk-lf-1"))
    assert "hunter22" not in str(caught.value)

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tracebridge_otel.configuration import OtelSettings, ReaderSettings
from tracebridge_otel.factory import sink_type
from tracebridge_otel.losses import TIME_IN_MICROSECONDS

READABLE = OtelSettings(reader=ReaderSettings(url="http://localhost:16686"))
ADAPTERS = Path(sys.modules["tracebridge_otel"].__path__[0]).parent

IMPORT = """
import sys
{before}
from tracebridge_otel.configuration import ReaderSettings, OtelSettings
from tracebridge_otel.factory import sink_type
settings = OtelSettings(reader=ReaderSettings(url="http://localhost:16686"))
sink_type.capabilities(settings), sink_type.endpoint(settings), sink_type.environment
{after}
"""


def run(before: str, after: str) -> str:
    environment = {"PYTHONPATH": f"{ADAPTERS}:{ADAPTERS.parent}"}
    code = IMPORT.format(before=before, after=after)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_asking_what_a_sink_can_do_loads_no_vendor_package() -> None:
    loaded = run("", "print(sorted({name.partition('.')[0] for name in sys.modules}))")
    for vendor in ("opentelemetry", "google", "grpc", "httpx", "langfuse"):
        assert f"'{vendor}'" not in loaded
    assert "'tracebridge_otel'" in loaded


@pytest.mark.parametrize("opening", ["open_sink", "open_reader"])
def test_opening_without_the_packages_names_the_extra(opening: str) -> None:
    message = run(
        "sys.modules.update(opentelemetry=None, httpx=None)",
        f"""
from tracebridge.errors import MissingExtraError
try:
    sink_type.{opening}(settings)
except MissingExtraError as error:
    print(error)
""",
    )
    assert "pip install 'tracebridge[otel]'" in message


def test_only_a_sink_with_a_reader_is_readable_and_only_it_declares_the_readers_losses() -> None:
    unread, read = sink_type.capabilities(OtelSettings()), sink_type.capabilities(READABLE)
    assert (unread.readable, unread.losses) == (False, ())
    assert (read.readable, read.losses) == (True, (TIME_IN_MICROSECONDS,))


def test_the_shown_endpoint_holds_no_credentials() -> None:
    settings = OtelSettings(endpoint="https://user:hunter22@collector:4318?key=hunter22")
    assert sink_type.endpoint(settings) == "https://collector:4318/v1/traces"


def test_tempo_keeps_times_and_has_no_page_of_its_own_for_a_trace() -> None:
    tempo = ReaderSettings(type="tempo", url="http://localhost:3200")
    page = "http://grafana/explore?trace={trace_id}"
    assert TIME_IN_MICROSECONDS not in sink_type.capabilities(OtelSettings(reader=tempo)).losses
    assert sink_type.trace_url(OtelSettings(reader=tempo), "1" * 32) == ""
    assert sink_type.trace_url(OtelSettings(reader=tempo, trace_page=page), "ab") == "http://grafana/explore?trace=ab"
    assert sink_type.trace_url(READABLE, "ab") == "http://localhost:16686/trace/ab"

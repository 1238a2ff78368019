from __future__ import annotations

import logging
import traceback

import pytest

from tests.config.conftest import Load, Mistakes
from tracebridge.config import reveal, show
from tracebridge.errors import ConfigurationError

SECRET = "sk-lf-hidden"
NUMBER = "48151623"


@pytest.mark.parametrize(
    "key",
    [
        "123 # " + SECRET,
        NUMBER,
        f"[{SECRET}]",
        f"{{a: {SECRET}}}",
        f"*{SECRET}",
        f"!{SECRET}",
        f"!{SECRET}!x y",
        f"%{SECRET}",
        f"@{SECRET}",
        f"'{SECRET}",
        f'"{SECRET}\\q{SECRET}"',
        f"${{{SECRET}}}",
        f"a: {SECRET}",
    ],
)
def test_a_mistake_in_a_secret_does_not_tell_it(load_yaml: Load, key: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        load_yaml(f"agent_trace:\n  sinks:\n    collector:\n      key: {key}")
    told = "".join(traceback.format_exception(raised.value))
    assert SECRET not in told
    assert NUMBER not in told


@pytest.mark.parametrize(
    "key", ["host", "timeout", "batch", "verify", "protocol", "reader", "regions", "headers", "policy"]
)
def test_a_secret_in_the_wrong_setting_is_not_told(mistakes: Mistakes, key: str) -> None:
    found = mistakes(
        f"agent_trace:\n  sinks:\n    collector:\n      key: k\n      {key}: ${{KEY}}\n      zzz: 1",
        {"KEY": f"http://{SECRET}:{SECRET}@host"},
    )
    assert found
    assert SECRET not in "".join(found)


def test_a_secret_that_a_record_quotes_is_not_told(mistakes: Mistakes) -> None:
    (mistake,) = mistakes(
        "agent_trace: {sinks: {collector: {key: k, protocol: grpc, verify: false, host: '${KEY}'}}}",
        {"KEY": SECRET},
    )
    assert "protocol grpc always verifies, also '…'" in mistake


@pytest.mark.parametrize("variable", ["COLLECTOR_HOST", "COLLECTOR_TIMEOUT", "COLLECTOR_HEADERS"])
def test_a_wrong_standard_variable_is_not_told(mistakes: Mistakes, variable: str) -> None:
    (mistake,) = mistakes("agent_trace: {sinks: {collector: {key: k}}}", {variable: f"http://{SECRET}@host"})
    assert SECRET not in mistake


def test_settings_never_show_a_secret(load_yaml: Load, caplog: pytest.LogCaptureFixture) -> None:
    settings = load_yaml(
        """
        agent_trace:
          sinks:
            collector: {key: "${KEY}", headers: {authorization: "Bearer ${KEY}"}}
        """,
        {"KEY": SECRET},
    )
    with caplog.at_level(logging.DEBUG):
        logging.getLogger(__name__).info("configured: %s", settings)
    assert SECRET not in repr(settings) + str(settings) + f"{settings}" + show(settings) + caplog.text


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"https://h/v1/traces?api_key={SECRET}&tenant=a#x", "https://h/v1/traces?api_key=********&tenant=********"),
        (f"https://h?{SECRET}", "https://h?********"),
        ("https://h/explore?left={trace_id}", "https://h/explore?left={trace_id}"),
        ("what?", "what?"),
    ],
)
def test_the_parameters_of_a_url_are_not_shown_but_for_a_placeholder(load_yaml: Load, url: str, shown: str) -> None:
    settings = load_yaml("agent_trace: {sinks: {collector: {key: k, host: '${URL}'}}}", {"URL": url})
    assert f'host: "{shown}"' in show(settings)
    assert url.encode() in reveal(settings)

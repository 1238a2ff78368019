from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from tracebridge.config import load
from tracebridge.errors import ConfigurationError
from tracebridge.registry import Registry
from tracebridge.secret import Secret
from tracebridge_otel.configuration import Backend, OtelSettings, ReaderSettings
from tracebridge_otel.factory import sink_type


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ({}, "http://localhost:4318/v1/traces"),
        ({"endpoint": "http://collector:4318"}, "http://collector:4318/v1/traces"),
        ({"endpoint": "http://collector:4318/"}, "http://collector:4318/v1/traces"),
        ({"endpoint": "https://host/otlp"}, "https://host/otlp/v1/traces"),
        ({"endpoint": "https://host/otlp/v1/traces"}, "https://host/otlp/v1/traces"),
        ({"base_endpoint": "http://collector:4318"}, "http://collector:4318/v1/traces"),
        ({"traces_endpoint": "http://collector:4318/custom"}, "http://collector:4318/custom"),
        ({"traces_endpoint": "http://a/x", "base_endpoint": "http://b"}, "http://a/x"),
        ({"endpoint": "http://file", "traces_endpoint": "http://a/x"}, "http://file/v1/traces"),
        ({"protocol": "grpc"}, "http://localhost:4317"),
        ({"protocol": "grpc", "endpoint": "https://collector:4317"}, "https://collector:4317"),
        ({"protocol": "grpc", "endpoint": "collector:4317"}, "https://collector:4317"),
        ({"protocol": "grpc", "endpoint": "collector:4317", "insecure": True}, "http://collector:4317"),
    ],
)
def test_the_address_follows_opentelemetrys_rules(settings: dict[str, Any], url: str) -> None:
    assert OtelSettings(**settings).url == url


@pytest.mark.parametrize(
    ("settings", "timeout_s"),
    [
        ({}, 10.0),
        ({"timeout": 3}, 3),
        ({"timeout_ms": 2500}, 2.5),
        ({"timeout": 3, "timeout_ms": 2500}, 3),
        # what the SDKs take for no limit at all
        ({"timeout_ms": 2**31 - 1}, 2_147_483.647),
    ],
)
def test_the_environments_milliseconds_become_seconds(settings: dict[str, Any], timeout_s: float) -> None:
    assert msgspec.convert(settings, OtelSettings).timeout_s == timeout_s


@pytest.mark.parametrize(
    ("settings", "service"),
    [
        ({}, "agent"),
        ({"resource": {"service.name": "from-resource"}}, "from-resource"),
        ({"service_name": "airline", "resource": {"service.name": "from-resource"}}, "airline"),
    ],
)
def test_the_service_is_the_named_one_before_that_of_the_resource(settings: dict[str, Any], service: str) -> None:
    assert OtelSettings(**settings).service == service


@pytest.mark.parametrize(
    "url",
    [
        "collector:4318",
        "localhost",
        "ftp://host",
        "http://",
        "http://host:43l8",
        "http://host:65536",
        "http://[::1:4318",
    ],
)
def test_an_endpoint_that_is_no_http_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="endpoint: expected http://host:port"):
        OtelSettings(endpoint=url)
    with pytest.raises(ValueError, match=r"reader\.url: expected http://host:port"):
        ReaderSettings(url=url)


@pytest.mark.parametrize(
    "endpoint", ["collector:43l7", "http://collector:65536", "ftp://host", "http://", "[::1:4317", "collector:4317\n"]
)
def test_an_endpoint_that_grpc_cannot_go_to_is_refused(endpoint: str) -> None:
    with pytest.raises(ValueError, match="endpoint: expected http://host:port"):
        OtelSettings(protocol="grpc", endpoint=endpoint)


@pytest.mark.parametrize("endpoint", ["me:hunter22@collector:4317", "https://me:hunter22@collector:4317"])
def test_an_endpoint_that_holds_credentials_is_refused_without_telling_them(endpoint: str) -> None:
    for variable in (False, True):
        with pytest.raises(ConfigurationError, match="holds credentials") as caught:
            configured(
                {"protocol": "grpc"} if variable else {"protocol": "grpc", "endpoint": endpoint},
                {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint} if variable else {},
            )
        assert "hunter22" not in str(caught.value)


def test_a_clients_key_without_its_certificate_is_refused() -> None:
    with pytest.raises(ValueError, match="client_certificate"):
        OtelSettings(client_key="key.pem")


def test_headers_are_never_shown() -> None:
    settings = OtelSettings(
        headers={"authorization": Secret("hunter22")},
        reader=ReaderSettings(url="http://h", headers={"x": Secret("hunter22")}),
    )
    assert "hunter22" not in repr(settings)


def configured(sink: dict[str, Any], environ: dict[str, str]) -> OtelSettings:
    registry = Registry({"otel": lambda: sink_type})
    source = {"agent_trace": {"sinks": {"otel": {"enabled": True, **sink}}}}
    (found,) = load(source, environ, sink_types=registry).sinks
    assert isinstance(found.settings, OtelSettings)
    return found.settings


def test_opentelemetrys_variables_fill_what_the_file_leaves_out() -> None:
    settings = configured(
        {"service_name": "from-file"},
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318",
            "OTEL_EXPORTER_OTLP_HEADERS": "api-key=s3cr3t,x=a%20b",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "2500",
            "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": "1500",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
            "OTEL_EXPORTER_OTLP_CERTIFICATE": "/ca.pem",
            "OTEL_SERVICE_NAME": "from-environment",
            "OTEL_RESOURCE_ATTRIBUTES": "team=a,region=eu%2Dwest",
        },
    )
    assert settings.url == "http://collector:4318/v1/traces"
    headers = {name: value.reveal() for name, value in settings.headers.items()}
    assert headers == {"api-key": "s3cr3t", "x": "a b"}
    assert settings.timeout_s == 1.5
    assert settings.compression == "gzip"
    assert settings.certificate == "/ca.pem"
    assert settings.service == "from-file"
    assert settings.resource == {"team": "a", "region": "eu-west"}


def test_the_files_endpoint_comes_before_every_variable() -> None:
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://general:4318",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://traces:4318/in",
    }
    assert configured({}, environ).url == "http://traces:4318/in"
    assert configured({"endpoint": "http://file:4318"}, environ).url == "http://file:4318/v1/traces"


def test_a_reader_is_configured_beside_the_sink() -> None:
    reader = {"type": "jaeger", "url": "http://localhost:16686", "headers": {"authorization": "hunter22"}}
    settings = configured({"protocol": "grpc", "reader": reader}, {})
    assert settings.reader == ReaderSettings(
        url="http://localhost:16686", headers={"authorization": Secret("hunter22")}
    )


def test_a_reader_is_jaegers_unless_it_is_said_to_be_tempos() -> None:
    old = configured({"reader": {"url": "http://localhost:16686"}}, {}).reader
    new = configured({"reader": {"type": "tempo", "url": "http://localhost:3200", "lookback": 60}}, {}).reader
    assert old is not None
    assert new is not None
    assert (old.type, old.visibility_lag_s) == ("jaeger", 5)
    assert (new.type, new.visibility_lag_s, new.lookback_s) == ("tempo", 15, 60)


@pytest.mark.parametrize(
    ("limit", "reader", "expected"),
    [
        (None, None, 0),
        (None, "jaeger", 0),
        (None, "tempo", 2_048),
        (0, "tempo", 0),
        (4_096, "tempo", 4_096),
        (4_096, None, 4_096),
    ],
)
def test_attributes_are_limited_where_it_is_said_and_by_tempos_own_limit_where_tempo_is_read(
    limit: int | None, reader: Backend | None, expected: int
) -> None:
    place = None if reader is None else ReaderSettings(type=reader, url="http://h")
    settings = OtelSettings(max_attribute_bytes=limit, reader=place)
    losses = [loss.name for loss in sink_type.capabilities(settings).losses]
    assert settings.attribute_limit == expected
    assert (f"attributes-cut-at-{expected}-bytes" in losses) == bool(expected)


@pytest.mark.parametrize(
    ("sink", "words"),
    [
        ({"protocol": "http/json"}, "protocol"),
        ({"compression": "zstd"}, "compression"),
        ({"timeout": 0}, "timeout"),
        (
            {"reader": {"type": "tmpo", "url": "http://localhost"}},
            "reader.type: expected one of jaeger, tempo, found `tmpo`",
        ),
        ({"reader": {"url": "http://localhost", "lookback": 60}}, "reader.lookback is for `type: tempo` alone"),
        ({"reader": {"type": "jaeger"}}, "reader.url"),
        ({"max_attribute_bytes": 1_023}, "max_attribute_bytes: expected at least 1024, or 0 for no limit"),
        ({"max_attribute_bytes": -1}, "max_attribute_bytes"),
        ({"endpoint": "collector:4318"}, "endpoint: expected http://host:port"),
        ({"endpont": "http://collector:4318"}, "endpoint"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(sink: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        configured(sink, {})
    assert words in str(caught.value)


def test_a_relative_certificate_is_found_from_elsewhere_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = OtelSettings(certificate="ca.pem", client_certificate="a/../client.pem", client_key="/key.pem")
    paths = (settings.certificate, settings.client_certificate, settings.client_key)
    assert paths == (str(tmp_path / "ca.pem"), str(tmp_path / "client.pem"), "/key.pem")

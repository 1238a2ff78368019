"""`tracebridge doctor`: it finds what is wrong, says what to do, and hangs on nothing."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import ssl
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from email.utils import formatdate
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from tests.cli.conftest import Run
from tests.delivery.file_backend import FileBackend, settings_for
from tests.delivery.rig import write_session
from tests.otlp.scripted_server import Script, free_port, hang, http_answer, scripted_server
from tests.test_registry import install
from tests.waiting import grace_s
from tests.workplace import Workplace, both, langfuse, otel
from tracebridge.delivery.lock import shipper_lock
from tracebridge.devserver import DevServer
from tracebridge.diagnosis import PROBE_MARK, Check
from tracebridge.doctor import Examination, examine_sink
from tracebridge.journal import layout
from tracebridge.sink import Outcome, Receipt
from tracebridge.testing import Fault

TLS = Path(__file__).resolve().parent.parent / "data" / "tls"
LOGIN = "text/html", b"<!DOCTYPE html><title>Sign in</title>"
HOUR_S = 3_600
SECRET = "sk-very-secret"
PROTOBUF = {"content-type": "application/x-protobuf"}

Answers = Mapping[str, tuple[int, str, bytes]]


class Told:
    """What the doctor said, by subject and check."""

    def __init__(self, code: int, out: str) -> None:
        self.code = code
        self.text = out
        found = json.loads(out)
        assert found["exit_code"] == code
        self.checks = {
            examined["subject"]: {check["name"]: check for check in examined["checks"]}
            for examined in found["examinations"]
        }

    def statuses(self, subject: str) -> dict[str, str]:
        return {name: check["status"] for name, check in self.checks[subject].items()}

    def failure(self, subject: str) -> tuple[str, str, str]:
        """Name, finding and remedy of the one check that fails."""
        (failed,) = [check for check in self.checks[subject].values() if check["status"] == "fail"]
        assert failed["remedy"]
        return failed["name"], failed["found"], failed["remedy"]


def ask(workplace: Workplace, *options: str) -> Told:
    ran = workplace.call("doctor", "--json", *options)
    assert ran.stderr == ""
    assert SECRET not in ran.stdout
    return Told(ran.returncode, ran.stdout)


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    return Workplace(tmp_path / "here")


def at(url: str, **changes: Any) -> dict[str, Any]:
    """A `langfuse` sink at an address."""
    return {"langfuse": {"host": url, "public_key": "pk-some", "secret_key": SECRET, "timeout": 2.0, **changes}}


def as_json(value: Any, status: int = 200) -> tuple[int, str, bytes]:
    return status, "application/json", json.dumps(value).encode()


def answering(answers: Answers, *headers: str) -> Script:
    """Answer by path; anything else is not found, as a page."""

    def script(connection: Any, request: bytes) -> None:
        path = request.split(b" ")[1].split(b"?")[0].decode() if request else ""
        status, media_type, body = answers.get(path, (404, *LOGIN))
        connection.sendall(http_answer(status, media_type, body, *headers))

    return script


def server_like(version: str, **changes: tuple[int, str, bytes]) -> dict[str, tuple[int, str, bytes]]:
    """The answers of a LangFuse server in its default mode, but for the routes that are given."""
    gone = as_json({"message": "This endpoint is not available"}, 404)
    routes = {
        "health": as_json({"status": "OK", "version": version}),
        "projects": as_json({"data": [{"id": "p", "name": "Shop", "organization": {"id": "o", "name": "Acme"}}]}),
        "v2/observations": as_json({"data": [], "meta": {}}),
        "v2/metrics": as_json({"data": []}),
        "traces": gone,
    }
    return {f"/api/public/{route}": answer for route, answer in (routes | changes).items()}


def server_side(certificate: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / certificate)
    return context


# --- all is well ----------------------------------------------------------------------------------------------------


def test_where_all_is_well_everything_is_looked_at_and_a_span_comes_back(
    place: Workplace, devserver: DevServer
) -> None:
    over_grpc = otel(devserver, type="otel", endpoint=devserver.grpc_endpoint, protocol="grpc", insecure=True)
    place.configure({**both(devserver), "grpc": over_grpc})
    told = ask(place)
    assert told.code == 0
    way = {"address": "ok", "connection": "ok", "tls": "skip"}
    reader = {f"reader {name}": status for name, status in way.items()} | {"reader": "ok", "reader clock": "ok"}
    probe = {"probe sent": "ok", "probe read": "ok"}
    server = {"server": "ok", "clock": "ok", "credentials": "ok", "write mode": "ok"}
    assert told.statuses("langfuse") == way | server | probe
    endpoint = {"endpoint": "ok", "credentials": "ok", "server": "skip"}
    assert told.statuses("otel") == way | endpoint | {"clock": "ok"} | reader | probe
    assert told.statuses("grpc") == way | endpoint | reader | probe
    assert set(told.statuses("local").values()) == {"ok"}
    found = {name: check["found"] for name, check in told.checks["langfuse"].items()}
    assert found["server"] == "LangFuse 4.16.0"
    assert found["credentials"] == "project 'Development' of 'Development'"
    assert found["write mode"].startswith("events_only")


def test_the_probe_is_told_apart_and_is_no_part_of_what_is_validated_or_restored(
    place: Workplace, devserver: DevServer, tmp_path: Path
) -> None:
    place.configure(both(devserver))
    write_session(place.trace_dir, "s", turns=1, at="2026-02-06T22:10:00.123Z")
    assert place.call("ship").returncode == 0
    assert ask(place).code == 0
    for sink in ("langfuse", "otel"):
        (probe,) = [span for span in place.observed(sink) if span.session_id.startswith(PROBE_MARK)]
        assert (probe.name, probe.environment, probe.tags, probe.fingerprint) == (
            PROBE_MARK,
            PROBE_MARK,
            (PROBE_MARK,),
            "",
        )
        restored = place.call("restore", "--from", sink, "--out", tmp_path / sink, "--json")
        told = json.loads(restored.stdout)
        assert ([session["session_id"] for session in told["sessions"]], told["probes"]) == (["s"], 1)
    assert place.call("validate").returncode == 0


def test_without_the_probe_nothing_is_sent(place: Workplace, devserver: DevServer) -> None:
    place.configure({"langfuse": langfuse(devserver)})
    told = ask(place, "--no-probe")
    assert (told.code, told.statuses("langfuse")["probe"]) == (0, "skip")
    assert not [route for route in devserver.requests if route.startswith("POST")]


def test_people_are_told_the_same(place: Workplace, devserver: DevServer) -> None:
    place.configure({"langfuse": langfuse(devserver, secret_key=SECRET)})
    ran = place.call("doctor")
    assert ran.returncode == 1
    assert f"langfuse -> {devserver.url}" in ran.stdout
    assert "  FAIL  credentials" in ran.stdout
    assert "what to do: check that public_key and secret_key are a pair" in ran.stdout
    assert ran.stdout.splitlines()[-1].endswith("1 failures, 3 not looked at")
    assert SECRET not in ran.stdout


def test_a_journal_without_sinks_is_looked_at_alone(place: Workplace) -> None:
    told = ask(place)
    assert (told.code, list(told.checks)) == (0, ["local"])
    assert "none but the journal" in told.checks["local"]["configuration"]["found"]


# --- on the way to the server ---------------------------------------------------------------------------------------


def test_a_refused_connection(place: Workplace) -> None:
    port = free_port()
    place.configure(at(f"http://127.0.0.1:{port}") | {"otel": {"endpoint": f"http://127.0.0.1:{port}"}})
    told = ask(place)
    for sink in ("langfuse", "otel"):
        name, found, remedy = told.failure(sink)
        assert (name, "Connection refused" in found, "that the server runs" in remedy) == ("connection", True, True)
        assert told.statuses(sink)["probe"] == "skip"


def test_a_name_that_nobody_knows(place: Workplace) -> None:
    place.configure(at("http://no-such-host.invalid:3000"))
    name, found, remedy = ask(place, "--timeout", "15").failure("langfuse")
    assert (name, "no-such-host.invalid" in found, "DNS" in remedy) == ("address", True, True)


def test_tls_to_a_port_that_speaks_none(place: Workplace, devserver: DevServer) -> None:
    place.configure(at(devserver.url.replace("http:", "https:")))
    name, _, remedy = ask(place).failure("langfuse")
    assert (name, "write http://" in remedy) == ("tls", True)


def test_plain_http_to_a_port_that_speaks_tls(place: Workplace) -> None:
    with scripted_server(hang, tls=server_side("good.pem")) as url:
        place.configure(at(url.replace("https:", "http:")))
        name, found, remedy = ask(place).failure("langfuse")
    assert (name, "speaks TLS" in found, "write https://" in remedy) == ("server", True, True)


@pytest.mark.parametrize(
    ("certificate", "authority", "said"),
    [
        ("good.pem", "", "self-signed|unable to get local issuer"),
        ("other-name.pem", "authority.pem", "not valid for|mismatch"),
        ("expired.pem", "authority.pem", "expired"),
    ],
    ids=["not trusted", "other name", "expired"],
)
def test_a_certificate_that_cannot_be_trusted(place: Workplace, certificate: str, authority: str, said: str) -> None:
    with scripted_server(answering(server_like("4.16.0")), tls=server_side(certificate)) as url:
        place.configure(at(url, ca_file=str(TLS / authority) if authority else ""))
        name, found, remedy = ask(place).failure("langfuse")
    assert name == "tls"
    assert any(words in found for words in said.split("|")), found
    assert "`ca_file`" in remedy


def test_a_certificate_of_an_authority_that_is_named_is_trusted(place: Workplace) -> None:
    with scripted_server(answering(server_like("4.16.0")), tls=server_side("good.pem")) as url:
        place.configure(at(url, ca_file=str(TLS / "authority.pem")))
        told = ask(place, "--no-probe")
    assert told.code == 0
    assert told.checks["langfuse"]["tls"]["found"].startswith("TLSv1")


def test_a_server_behind_a_proxy_is_asked_through_it(place: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {f"http://langfuse.example{path}": answer for path, answer in server_like("4.16.0").items()}
    with scripted_server(answering(answers)) as proxy:
        for name in ("NO_PROXY", "no_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("http_proxy", proxy)
        place.configure(at("http://langfuse.example"))
        told = ask(place, "--no-probe")
    statuses = told.statuses("langfuse")
    assert (told.code, statuses["connection"], statuses["server"], statuses["write mode"]) == (0, "skip", "ok", "ok")


def test_an_ipv6_address_that_is_exempted_is_looked_at_and_no_proxy_blamed(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.invalid:1")
    monkeypatch.setenv("NO_PROXY", "::1")
    place.configure(at(f"http://[::1]:{free_port()}"))
    told = ask(place, "--no-probe")
    assert told.failure("langfuse")[0] == "connection"


# --- at the server --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 403])
def test_refused_credentials(place: Workplace, devserver: DevServer, status: int) -> None:
    place.configure(both(devserver))
    devserver.faults.add(Fault(route="GET /api/public/projects", status=status, body=devserver.secret_key))
    devserver.faults.add(Fault(route="POST /v1/traces", status=status))
    told = ask(place)
    assert devserver.secret_key not in told.text
    for sink, setting in (("langfuse", "secret_key"), ("otel", "headers")):
        name, found, remedy = told.failure(sink)
        assert (name, f"HTTP {status}" in found, setting in remedy) == ("credentials", True, True)
        assert told.statuses(sink)["probe"] == "skip"


def test_keys_of_another_project(place: Workplace, devserver: DevServer) -> None:
    place.configure({"langfuse": langfuse(devserver, public_key="pk-lf-other", secret_key=SECRET)})
    name, found, remedy = ask(place).failure("langfuse")
    assert (name, "HTTP 401" in found, "are a pair" in remedy) == ("credentials", True, True)


def test_a_secret_that_the_server_quotes_is_masked(place: Workplace) -> None:
    quoted = as_json({"message": f"no such key: {SECRET}"}, 401)
    with scripted_server(answering(server_like("4.16.0", projects=quoted))) as url:
        place.configure(at(url))
        assert "***" in ask(place).failure("langfuse")[1]


@pytest.mark.parametrize(
    ("health", "said", "to_do"),
    [
        ((200, *LOGIN), "web page", "check `host`"),
        ((404, *LOGIN), "nothing at", "without the API's path"),
        (as_json({"hello": 1}), "does not answer as LangFuse", "check `host`"),
        (as_json({"version": "3.155.1"}), "LangFuse 3.155.1", "upgrade the server to version 4"),
        (as_json({"version": "4.16.0", "status": "Database not available"}, 503), "not well", "server's log"),
        ((502, *LOGIN), "HTTP 502", "check `host`"),
    ],
    ids=["login page", "wrong path", "another server", "version 3", "not well", "gateway"],
)
def test_a_server_that_is_none_or_not_the_right_one(
    place: Workplace, health: tuple[int, str, bytes], said: str, to_do: str
) -> None:
    with scripted_server(answering(server_like("4.16.0", health=health))) as url:
        place.configure(at(url))
        told = ask(place)
    name, found, remedy = told.failure("langfuse")
    assert (name, said in found, to_do in remedy) == ("server", True, True), (found, remedy)
    assert told.statuses("langfuse")["probe"] == "skip"


def test_a_redirect_to_a_login(place: Workplace) -> None:
    moved = http_answer(302, "text/html", b"", "Location: https://login.example/")
    with scripted_server(lambda connection, _: connection.sendall(moved)) as url:
        place.configure(at(url))
        name, found, _ = ask(place).failure("langfuse")
    assert (name, found) == ("server", "it redirects to https://login.example/")


def test_a_wrong_path_of_the_real_thing(place: Workplace, devserver: DevServer) -> None:
    place.configure(
        {"langfuse": langfuse(devserver, host=f"{devserver.url}/langfuse")}
        | {"otel": otel(devserver, endpoint=f"{devserver.url}/otlp")}
    )
    told = ask(place)
    assert told.failure("langfuse")[0] == "server"
    name, found, remedy = told.failure("otel")
    assert (name, "404" in found, "/v1/traces" in remedy) == ("endpoint", True, True)


TRACES = as_json({"data": [], "meta": {}})


@pytest.mark.parametrize(
    ("changes", "status", "said"),
    [
        ({}, "ok", "events_only"),
        ({"traces": TRACES}, "ok", "dual"),
        ({"traces": TRACES, "v2/metrics": as_json({"message": "only in v4"}, 404)}, "fail", "legacy"),
        ({"v2/observations": (404, *LOGIN)}, "fail", "no /api/public/v2/observations"),
        ({"v2/observations": as_json({"message": "slow down"}, 429)}, "warn", "rate is limited"),
        ({"traces": as_json({}, 500)}, "skip", "cannot be told"),
    ],
    ids=["events_only", "dual", "legacy", "no route", "rate limit", "unknown"],
)
def test_the_write_mode(place: Workplace, changes: dict[str, tuple[int, str, bytes]], status: str, said: str) -> None:
    with scripted_server(answering(server_like("4.16.0", **changes))) as url:
        place.configure(at(url))
        told = ask(place, "--no-probe")
    check = told.checks["langfuse"]["write mode"]
    assert (check["status"], said in check["found"]) == (status, True), check
    assert told.code == (status == "fail")


@pytest.mark.parametrize("behind_s", [HOUR_S, -HOUR_S, 0], ids=["behind", "ahead", "right"])
def test_a_clock_that_is_off(place: Workplace, behind_s: int) -> None:
    date = f"Date: {formatdate(time.time() + behind_s, usegmt=True)}"
    with scripted_server(answering(server_like("4.16.0"), date)) as url:
        place.configure(at(url))
        told = ask(place, "--no-probe")
    check = told.checks["langfuse"]["clock"]
    if behind_s == 0:
        assert check["status"] == "ok"
        return
    assert (told.code, check["status"]) == (0, "warn")
    way = "behind" if behind_s > 0 else "ahead of"
    assert f"s {way} the server's (±" in check["found"]
    told_s = int(check["found"].split(" is ")[1].split(" s ")[0].replace(",", ""))
    assert abs(told_s - HOUR_S) <= 5
    assert "NTP" in check["remedy"]


def test_a_reader_that_is_none(place: Workplace, devserver: DevServer) -> None:
    reader = {"type": "jaeger", "url": f"{devserver.url}/jaeger"}
    place.configure({"otel": otel(devserver, reader=reader)})
    name, found, remedy = ask(place).failure("otel")
    assert (name, "404" in found, "16686" in remedy) == ("reader", True, True)


def test_a_reader_of_tempos(place: Workplace, devserver: DevServer) -> None:
    place.configure({"otel": otel(devserver, reader={"type": "tempo", "url": devserver.url})})
    told = ask(place)
    assert (told.statuses("otel")["reader"], told.statuses("otel")["probe read"]) == ("ok", "ok")


def test_a_reader_that_is_no_tempo(place: Workplace, devserver: DevServer) -> None:
    place.configure({"otel": otel(devserver, reader={"type": "tempo", "url": f"{devserver.url}/tempo"})})
    name, found, remedy = ask(place).failure("otel")
    assert (name, "404" in found, "3200" in remedy) == ("reader", True, True)


def test_a_sink_without_a_reader_is_warned_of(place: Workplace, devserver: DevServer) -> None:
    place.configure({"otel": {"endpoint": devserver.url}})
    told = ask(place)
    statuses = told.statuses("otel")
    assert (told.code, statuses["reader"], statuses["probe sent"], statuses["probe read"]) == (0, "warn", "ok", "skip")


# --- the probe ------------------------------------------------------------------------------------------------------


def test_what_is_accepted_and_never_shows(place: Workplace, devserver: DevServer) -> None:
    devserver.faults.add(Fault(route="POST *", drop=True))
    place.configure(both(devserver))
    told = ask(place, "--timeout", "1.5")
    for sink in ("langfuse", "otel"):
        name, found, remedy = told.failure(sink)
        assert (name, "still not there" in found, "queue" in remedy) == ("probe read", True, True)


def test_what_is_there_and_no_search_finds_as_behind_a_collector_that_renames_the_service(
    place: Workplace, devserver: DevServer
) -> None:
    def rename(connection: socket.socket, request: bytes) -> None:
        body = request.partition(b"\r\n\r\n")[2].replace(b"\n\x05agent", b"\n\x05other")
        answer = httpx.post(f"{devserver.url}/v1/traces", content=body, headers=PROTOBUF)
        connection.sendall(http_answer(answer.status_code, PROTOBUF["content-type"], answer.content))

    with scripted_server(rename) as collector:
        place.configure({"otel": otel(devserver, endpoint=collector, service_name="agent")})
        name, found, remedy = ask(place, "--timeout", "1.5").failure("otel")
        assert (name, "`restore`" in found, "service.name" in remedy) == ("probe read", True, True)
        place.configure({"otel": otel(devserver, endpoint=collector, service_name="other")})
        assert ask(place).statuses("otel")["probe read"] == "ok"


def test_what_is_refused_with_the_backends_words(place: Workplace, devserver: DevServer) -> None:
    devserver.faults.add(Fault(route="POST /api/*", status=400, body='{"error": "no more today"}'))
    place.configure({"langfuse": langfuse(devserver)})
    name, found, _ = ask(place).failure("langfuse")
    assert (name, "no more today" in found) == ("probe sent", True)


def test_what_is_stored_twice_is_warned_of(place: Workplace, devserver: DevServer) -> None:
    devserver.faults.add(Fault(route="POST /api/*", duplicate=True))
    place.configure({"langfuse": langfuse(devserver)})
    told = ask(place)
    assert (told.code, told.statuses("langfuse")["probe read"]) == (0, "warn")
    assert "2 times" in told.checks["langfuse"]["probe read"]["found"]


def test_a_server_that_hangs_is_given_up_in_time(place: Workplace, devserver: DevServer) -> None:
    devserver.faults.add(Fault(route="*", hang=True))
    place.configure({"langfuse": langfuse(devserver), "otel": otel(devserver)})
    began = time.monotonic()
    told = ask(place, "--timeout", "0.5")
    assert time.monotonic() - began < 2 * (0.5 + 1.0) + grace_s()
    assert told.code == 1
    devserver.faults.clear()


# --- plug-ins -------------------------------------------------------------------------------------------------------


def examined(backend: FileBackend, folder: Path, timeout_s: float = 5.0) -> Examination:
    folder.mkdir(parents=True, exist_ok=True)
    return examine_sink(settings_for(folder, backend, folder / "file.jsonl").sinks[0], timeout_s)


def test_a_sink_type_without_checks_of_its_own_is_probed(tmp_path: Path) -> None:
    found = examined(FileBackend(), tmp_path)
    assert [(check.name, check.status) for check in found.checks] == [("probe sent", "ok"), ("probe read", "ok")]
    assert found.endpoint == str(tmp_path / "file.jsonl")


def test_a_plug_in_brings_checks_of_its_own(tmp_path: Path) -> None:
    class Bringing(FileBackend):
        def diagnose(self, settings: msgspec.Struct, timeout_s: float) -> Iterator[Check]:
            yield Check(name="disk", status="warn", found="nearly full", remedy="tidy up")

    assert [check.name for check in examined(Bringing(), tmp_path).checks] == ["disk", "probe sent", "probe read"]


def test_a_plug_in_that_hangs_is_left_behind_with_what_it_told(tmp_path: Path) -> None:
    let_go = threading.Event()

    class Hanging(FileBackend):
        def diagnose(self, settings: msgspec.Struct, timeout_s: float) -> Iterator[Check]:
            yield Check(name="disk", status="ok", found="there")
            let_go.wait()

    found = examined(Hanging(), tmp_path, timeout_s=0.3)
    let_go.set()
    assert [(check.name, check.status) for check in found.checks] == [("disk", "ok"), ("time", "fail")]
    assert "hangs after 'disk'" in found.checks[-1].found


@pytest.mark.parametrize("where", ["diagnose", "endpoint", "open_sink", "open_reader"])
def test_a_plug_in_that_raises_is_named_as_such(tmp_path: Path, where: str) -> None:
    def fail(*_: object) -> Any:
        raise ZeroDivisionError("oh")

    broken = type("Broken", (FileBackend,), {where: fail})()
    last = examined(broken, tmp_path).checks[-1]
    assert (last.name, last.status, last.found) == ("plug-in", "fail", "it raises ZeroDivisionError: oh")


@pytest.mark.parametrize("outcome", [outcome for outcome in Outcome if outcome is not Outcome.ACCEPTED])
def test_every_refusal_of_the_probe_has_a_remedy(tmp_path: Path, outcome: Outcome) -> None:
    backend = FileBackend()
    backend.answers.scripted = [Receipt(outcome=outcome, message="because")]
    (check,) = examined(backend, tmp_path).checks
    assert (check.status, check.found) == ("fail", f"{outcome.value}: because")
    assert check.remedy


def test_a_probe_that_an_accepting_answer_refuses_is_a_failure(tmp_path: Path) -> None:
    backend = FileBackend()
    backend.answers.scripted = [Receipt(outcome=Outcome.ACCEPTED, rejected=1, message="not that one")]
    (check,) = examined(backend, tmp_path).checks
    assert (check.status, check.found) == ("fail", "the request was taken and its span refused: not that one")


def test_a_plug_in_that_does_not_import_is_named(
    place: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    install(site, "kafka-sink", {"kafka": "kafka_broken:KAFKA"}, {"kafka_broken": "import no_such_package"})
    place.configure({"kafka": {"servers": "x"}})
    name, found, remedy = ask(place).failure("kafka")
    assert (name, "no_such_package" in found, "install what it needs" in remedy) == ("plug-in", True, True)


def test_a_package_that_is_missing_is_named_with_the_command(
    place: Workplace, devserver: DevServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.configure({"langfuse": langfuse(devserver)})
    monkeypatch.delitem(sys.modules, "tracebridge_langfuse.diagnosis", raising=False)
    monkeypatch.setitem(sys.modules, "httpx", None)
    name, found, _ = ask(place).failure("langfuse")
    assert (name, "pip install 'tracebridge[langfuse]'" in found) == ("packages", True)


# --- this machine ---------------------------------------------------------------------------------------------------


def test_every_mistake_of_the_configuration_is_told_with_its_line(place: Workplace) -> None:
    place.config.write_text("agent_trace:\n  trace_dirr: x\n  sample_rate: 7\n", encoding="utf-8")
    ran = place.call("doctor", "--json")
    found = json.loads(ran.stdout)["examinations"]
    assert (ran.returncode, [examination["subject"] for examination in found]) == (1, ["local"])
    assert [(check["status"], ", line " in check["found"]) for check in found[0]["checks"]] == [("fail", True)] * 2


def test_a_file_in_the_place_of_the_trace_folder(place: Workplace) -> None:
    place.trace_dir.write_text("")
    assert ask(place).failure("local")[0] == "trace folder"


def test_a_trace_folder_that_may_not_be_written_to(tmp_path: Path) -> None:
    place = Workplace(tmp_path / "here")
    # nobody may, root included
    place.trace_dir = Path("/proc/self")
    place.configure({})
    name, _, remedy = ask(place).failure("local")
    assert (name, "let the user" in remedy) == ("trace folder", True)


def test_looking_leaves_nothing_behind(place: Workplace) -> None:
    ask(place)
    assert not place.trace_dir.exists()
    place.trace_dir.mkdir()
    ask(place)
    assert list(place.trace_dir.iterdir()) == []


def test_a_network_file_system(place: Workplace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text("1 0 0:1 / / rw - ext4 /dev/root rw\n2 1 0:2 / " + str(place.folder) + " rw - nfs4 srv:/x rw\n")
    monkeypatch.setattr("tracebridge.journal.file_system.check_file_system.__defaults__", (str(table),))
    name, found, _ = ask(place).failure("local")
    assert (name, "nfs4" in found) == ("file system", True)


def test_a_state_of_a_newer_version(place: Workplace) -> None:
    file = layout.state_file(place.trace_dir)
    file.parent.mkdir(parents=True)
    with closing(sqlite3.connect(file)) as database:
        database.execute("PRAGMA user_version = 999")
        database.execute("CREATE TABLE about (name TEXT, value TEXT)")
        database.commit()
    name, _, remedy = ask(place).failure("local")
    assert (name, "newer" in remedy) == ("state", True)


def test_who_ships_is_told(place: Workplace, devserver: DevServer) -> None:
    place.configure({"langfuse": langfuse(devserver)}, delivery="external")
    check = ask(place, "--no-probe").checks["local"]["shipper of langfuse"]
    assert (check["status"], check["remedy"]) == ("warn", "run `tracebridge ship --follow`")
    lock = shipper_lock(place.trace_dir, "langfuse")
    assert lock.acquire()
    try:
        check = ask(place, "--no-probe").checks["local"]["shipper of langfuse"]
    finally:
        lock.release()
    assert (check["status"], str(os.getpid()) in check["found"]) == ("ok", True)


def test_the_versions_of_what_the_sinks_need_are_told(place: Workplace, devserver: DevServer) -> None:
    place.configure({"langfuse": langfuse(devserver)})
    found = ask(place, "--no-probe").checks["local"]["versions"]["found"]
    assert found.startswith("tracebridge ")
    for name in ("Python 3.", "msgspec ", "httpx ", "opentelemetry-proto "):
        assert name in found


def test_one_sink_can_be_asked_for(place: Workplace, devserver: DevServer) -> None:
    place.configure(both(devserver))
    assert list(ask(place, "--sink", "otel", "--no-probe").checks) == ["local", "otel"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--sink", "nobody"], "no sink called 'nobody'"),
        (["--timeout", "0"], "above 0"),
        (["--timeout", "x"], "above 0"),
    ],
    ids=["unknown sink", "no time", "no number"],
)
def test_a_wrong_command_line_is_told_with_exit_code_2(
    run: Run, workplace: Workplace, options: list[str], said: str
) -> None:
    ran = run("--config", workplace.config, "doctor", *options)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err

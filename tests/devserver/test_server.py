"""Starting and stopping: ports, files, the foreground."""

from __future__ import annotations

import contextlib
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.devserver.exports import TRACE_ID, export, span
from tests.waiting import grace_s, until
from tracebridge.devserver import DevServer, DevServerError
from tracebridge.testing import Fault, Faults


def keys(server: DevServer) -> tuple[str, str]:
    return server.public_key, server.secret_key


def test_data_survive_a_restart_with_the_same_file(tmp_path: Path) -> None:
    file = tmp_path / "dev.sqlite"
    with DevServer(db=file) as server:
        httpx.post(f"{server.url}/api/public/otel/v1/traces", json=export(span()), auth=keys(server))
        httpx.post(f"{server.url}/v1/traces", json=export(span()))
    with DevServer(db=str(file)) as server:
        page = httpx.get(f"{server.url}/api/public/v2/observations", auth=keys(server)).json()
        assert [row["traceId"] for row in page["data"]] == [TRACE_ID]
        assert httpx.get(f"{server.url}/api/v3/traces/{TRACE_ID}").status_code == 200


def test_without_a_file_nothing_survives() -> None:
    with DevServer() as server:
        httpx.post(f"{server.url}/v1/traces", json=export(span()))
        assert httpx.get(f"{server.url}/api/v3/traces/{TRACE_ID}").status_code == 200
    with DevServer() as server:
        assert httpx.get(f"{server.url}/api/v3/traces/{TRACE_ID}").status_code == 404


def test_a_server_can_be_cleared(tmp_path: Path) -> None:
    with DevServer(db=tmp_path / "dev.sqlite") as server:
        httpx.post(f"{server.url}/v1/traces", json=export(span()))
        server.faults.add(Fault(status=500))
        server.clear()
        assert server.requests == {}
        assert httpx.get(f"{server.url}/api/v3/traces/{TRACE_ID}").status_code == 404


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(DevServerError, match=f"127.0.0.1:{port}"):
            DevServer(port=port).start()
        with pytest.raises(DevServerError, match=f"gRPC cannot listen on 127.0.0.1:{port}"):
            DevServer(grpc_port=port).start()


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "example.invalid"])
def test_only_loopback_is_served(host: str) -> None:
    with pytest.raises(DevServerError, match="loopback"):
        DevServer(host=host).start()


def test_a_file_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    text, database = tmp_path / "notes.txt", tmp_path / "other.sqlite"
    text.write_text("not a database, and long enough to be looked at as one" * 20)
    connection = sqlite3.connect(database)
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    for file in (text, database):
        before = file.read_bytes()
        with pytest.raises(DevServerError, match=file.name):
            DevServer(db=file).start()
        assert file.read_bytes() == before


def test_a_file_of_another_version_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "dev.sqlite"
    with DevServer(db=file):
        pass
    connection = sqlite3.connect(file)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(DevServerError, match="schema 99"):
        DevServer(db=file).start()


def test_a_server_that_does_not_run_has_no_url() -> None:
    with pytest.raises(DevServerError, match="not running"):
        _ = DevServer().url


def test_a_hanging_request_does_not_hold_up_the_stop() -> None:
    faults = Faults([Fault(route="GET *", hang=True)])
    with DevServer(faults=faults) as server:
        url = server.url
        ended = threading.Event()

        def ask() -> None:
            with contextlib.suppress(httpx.HTTPError):  # whether the answer still comes is not the point
                httpx.get(f"{url}/api/public/health", timeout=10)
            ended.set()

        asker = threading.Thread(target=ask)
        asker.start()
        until(lambda: faults.held > 0, "it is asked")
        before = time.monotonic()
    assert time.monotonic() - before < grace_s()
    assert ended.wait(50)
    asker.join()


def test_a_secret_key_is_never_shown() -> None:
    with DevServer(secret_key="sk-very-secret") as server:
        assert "very-secret" not in repr(server)
        assert "very-secret" not in repr(vars(server))


FOREGROUND = """
from tracebridge.devserver import serve
serve(ready=lambda url: print(url, flush=True))
print("ended", flush=True)
"""


def test_the_foreground_server_says_when_it_is_ready_and_ends_at_ctrl_c() -> None:
    process = subprocess.Popen([sys.executable, "-c", FOREGROUND], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert httpx.get(f"{url}/api/public/health").status_code == 200
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=10)
        assert (rest.strip(), process.returncode) == ("ended", 0)
    finally:
        process.kill()
        process.communicate()

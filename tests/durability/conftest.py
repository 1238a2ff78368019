"""A process that runs and kills others, and a backend whose every stored copy can be counted."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import certifi
import pytest

from tests.durability.killing import CannotTraceError, Killer
from tracebridge.devserver import DevServer

SpanId = tuple[str, str]

pytest.register_assert_rewrite("tests.durability.recovery")

IMPORTED = (
    "tests.durability.scenarios",
    "tracebridge.validation",
    "tracebridge_langfuse.losses",
    "tracebridge_langfuse.sink",
    "tracebridge_langfuse.reader",
    "tracebridge_otel.sink",
    "tracebridge_otel.jaeger_reader",
    # imported by others when they are first used
    "encodings.idna",
    "httpcore",
)
"""So that no run spends system calls on it."""


@pytest.fixture(scope="package")
def killer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killer]:
    try:
        with Killer(IMPORTED, tmp_path_factory.mktemp("killer") / "log") as killer:
            yield killer
    except CannotTraceError as error:
        pytest.skip(str(error))


class CountedServer:
    """A development backend, and all that it has stored since it was last asked, also what it does not show yet."""

    def __init__(self, server: DevServer, file: Path) -> None:
        self.server = server
        self._db = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
        self._seen = {"observation": 0, "span": 0}

    def new_copies(self) -> Counter[SpanId]:
        """How often each span was stored since the last call, as LangFuse's observations and as OTLP's spans."""
        return self._new("observation", "id") + self._new("span", "span_id")

    def close(self) -> None:
        self._db.close()

    def _new(self, table: str, span_id: str) -> Counter[SpanId]:
        query = f"SELECT rowid, trace_id, {span_id} FROM {table} WHERE rowid > ? ORDER BY rowid"
        rows = self._db.execute(query, (self._seen[table],)).fetchall()
        if rows:
            self._seen[table] = rows[-1][0]
        return Counter((trace_id, span_id) for _, trace_id, span_id in rows)


@pytest.fixture(scope="package")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CountedServer]:
    file = tmp_path_factory.mktemp("backend") / "backend.sqlite"
    with DevServer(db=file) as server:
        counted = CountedServer(server, file)
        yield counted
        counted.close()


@pytest.fixture
def counted(running: CountedServer) -> CountedServer:
    """A backend without faults; what other tests have stored is not counted."""
    running.server.faults.clear()
    running.new_copies()
    return running


@pytest.fixture(scope="package")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with one certificate, which nobody uses: loading the usual hundred is slow and many system calls."""
    end = "-----END CERTIFICATE-----"
    file = tmp_path_factory.mktemp("certificates") / "one.pem"
    first, _, _ = Path(certifi.where()).read_text("utf-8").partition(end)
    file.write_text(first + end + "\n", "utf-8")
    return file

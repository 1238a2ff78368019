"""SQLite is never carried over a fork: the parent goes on, the child opens its own with real locks, or not at all."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.forking import in_child
from tests.open_files import open_files_below
from tests.waiting import grace_s
from tracebridge.delivery.connection import FORK_WAIT_S, Connection
from tracebridge.delivery.state import State

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "état %.sqlite"


@pytest.fixture
def connection(path: Path) -> Iterator[Connection]:
    connection = Connection(path, 0.0)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE number (value INTEGER)")
    yield connection
    connection.close()


def test_the_parent_goes_on_and_the_child_cannot_use_what_it_inherited(path: Path, connection: Connection) -> None:
    connection.execute("INSERT INTO number VALUES (1)")
    assert in_child(lambda: str(connection.execute("SELECT 1"))).startswith("ForkedError: ")
    assert in_child(lambda: repr(open_files_below(path.parent))) == "[]", "no descriptor of it is inherited"
    connection.execute("INSERT INTO number VALUES (2)")
    assert connection.execute("SELECT sum(value) FROM number").fetchone() == (3,)


def test_a_childs_own_connection_and_its_parents_keep_each_other_out(path: Path, connection: Connection) -> None:
    go_on, told = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        own = Connection(path, 0.0)
        own.execute("BEGIN IMMEDIATE")
        os.write(told[1], b"begun")
        os.read(go_on[0], 1)
        own.execute("INSERT INTO number VALUES (7)")
        own.execute("COMMIT")
        own.close()
        os._exit(0)
    assert os.read(told[0], 5) == b"begun"
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        connection.execute("BEGIN IMMEDIATE")
    os.write(go_on[1], b"!")
    assert os.waitpid(child, 0)[1] == 0
    assert connection.execute("SELECT value FROM number").fetchall() == [(7,)]
    for descriptor in (*go_on, *told):
        os.close(descriptor)


def test_forks_in_the_middle_of_a_busy_threads_work_cost_it_nothing(path: Path, connection: Connection) -> None:
    stop, errors, written = threading.Event(), list[BaseException](), 0
    patient = Connection(path, 20.0)

    def write() -> None:
        nonlocal written
        try:
            while not stop.is_set():
                with patient.unforked():
                    patient.execute("BEGIN IMMEDIATE")
                    patient.execute("INSERT INTO number VALUES (1)")
                    patient.execute("COMMIT")
                written += 1
        except BaseException as error:
            errors.append(error)

    def count() -> str:
        own = Connection(path, 20.0)
        assert own.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        own.execute("INSERT INTO number VALUES (0)")
        own.close()
        return "well"

    thread = threading.Thread(target=write)
    thread.start()
    assert [in_child(count) for _ in range(10)] == ["well"] * 10
    stop.set()
    thread.join()
    patient.close()
    assert errors == []
    assert connection.execute("SELECT count(*), sum(value) FROM number").fetchone() == (written + 10, written)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_fork_waits_for_a_long_transaction_only_so_long_and_then_the_child_does_without(
    path: Path, connection: Connection
) -> None:
    begun, end = threading.Event(), threading.Event()

    def transact() -> None:
        with connection.unforked():
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO number VALUES (1)")
            begun.set()
            end.wait(20)
            connection.execute("COMMIT")

    thread = threading.Thread(target=transact)
    thread.start()
    begun.wait(20)
    began = time.monotonic()
    told = in_child(lambda: str(State(path.with_name("state.sqlite"))))
    assert FORK_WAIT_S <= time.monotonic() - began < FORK_WAIT_S + grace_s()
    assert told.startswith("ForkedError: ")
    end.set()
    thread.join()
    assert connection.execute("SELECT value FROM number").fetchall() == [(1,)]
    assert in_child(lambda: str(Connection(path, 1.0).execute("SELECT 2").fetchone())) == "(2,)"


def test_a_thread_that_forks_in_the_middle_of_its_own_transaction_does_not_wait_for_itself(
    path: Path, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracebridge.delivery.connection.FORK_WAIT_S", 40.0)
    with connection.unforked():
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO number VALUES (1)")
        began = time.monotonic()
        assert in_child(lambda: str(Connection(path, 0.0))).startswith("ForkedError: ")
        assert time.monotonic() - began < 20
        connection.execute("COMMIT")
    assert connection.execute("SELECT value FROM number").fetchall() == [(1,)]


def test_a_file_that_was_deleted_meanwhile_is_not_made_anew(path: Path, connection: Connection) -> None:
    assert in_child(lambda: "forked") == "forked"
    for file in path.parent.glob("*.sqlite*"):
        file.unlink()
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        connection.execute("SELECT 1")
    assert not path.exists()


def test_of_a_file_that_is_no_database_nothing_is_left_open_also_while_somebody_holds_the_error(path: Path) -> None:
    path.write_bytes(b"no database at all " * 100)
    with pytest.raises(sqlite3.DatabaseError) as refused:
        Connection(path, 0.0)
    assert open_files_below(path.parent) == [], refused

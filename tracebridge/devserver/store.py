"""The one SQLite file of the development backend: Langfuse observations and raw OTLP spans."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tracebridge.devserver.errors import DevServerError

_APPLICATION_ID = 0x74726264  # "trbd": tells our files from anybody else's
_SCHEMA_VERSION = 2


class Observation(msgspec.Struct, kw_only=True):
    """One row of Langfuse's events table, as its v2 API reads it. Times are milliseconds since 1970."""

    trace_id: str
    id: str
    start_ms: int
    trace_hash: int
    end_ms: int
    created_ms: int
    visible_ms: int = 0
    parent_id: str | None = None
    type: str = "SPAN"
    name: str = ""
    level: str = "DEFAULT"
    status_message: str = ""
    version: str = ""
    release: str = ""
    environment: str = "default"
    completion_start_ms: int | None = None
    input: str | None = None
    output: str | None = None
    metadata: dict[str, str] = {}
    """Raw text per key, in the order of reading; parsed only when read."""
    model: str = ""
    model_id: str = ""
    model_parameters: dict[str, Any] = {}
    usage: dict[str, int] = {}
    cost: dict[str, float] = {}
    prompt_name: str = ""
    prompt_version: int | None = None
    user_id: str = ""
    session_id: str = ""
    is_root: bool = False
    trace_name: str | None = None
    tags: list[str] = []
    public: bool = False


class OtlpSpan(msgspec.Struct, kw_only=True):
    """One span as it came in over OTLP; the blobs are serialized protobuf messages."""

    trace_id: str
    span_id: str
    service: str
    name: str
    kind: int
    start_us: int
    duration_us: int
    marks: str
    """Of each attribute of span, scope and resource a short mark, so that a search need not parse every body."""
    resource: bytes
    scope: bytes
    body: bytes


class Condition(msgspec.Struct, frozen=True):
    """A piece of a WHERE clause with its parameters."""

    sql: str
    params: tuple[Any, ...] = ()


_FIELDS = Observation.__struct_fields__
_JSON_FIELDS = frozenset({"metadata", "model_parameters", "usage", "cost", "tags"})
_COLUMNS = ", ".join(f'"{name}"' for name in _FIELDS)

_SCHEMA = f"""
CREATE TABLE observation ({_COLUMNS});
CREATE INDEX observation_trace ON observation (trace_id, id, start_ms);
CREATE INDEX observation_session ON observation (session_id, start_ms);
CREATE INDEX observation_start ON observation (start_ms, trace_hash, id);

CREATE TABLE part (id INTEGER PRIMARY KEY, digest BLOB UNIQUE, body BLOB);
CREATE TABLE span (trace_id, span_id, service, name, kind, start_us, duration_us, visible_ms, marks,
                   resource REFERENCES part, scope REFERENCES part, body BLOB);
CREATE INDEX span_trace ON span (trace_id, span_id);
CREATE INDEX span_start ON span (start_us);
CREATE INDEX span_service ON span (service, name, kind);
"""


class Store:
    """All reads and writes. One connection, one lock: safe from any thread."""

    def __init__(self, path: Path | None) -> None:
        self._lock = threading.RLock()
        self._connection = _open(path)
        self._queued_until_ms = {table: self._last_visible_ms(table) for table in ("observation", "span")}

    def close(self) -> None:
        """Close the file; nothing may be asked afterwards."""
        with self._lock:
            self._connection.close()

    def clear(self) -> None:
        """Forget everything that is stored."""
        with self._lock, self._connection:
            for table in ("observation", "span", "part"):
                self._connection.execute(f"DELETE FROM {table}")
            self._queued_until_ms = dict.fromkeys(self._queued_until_ms, 0)

    # Langfuse observations

    def add_observations(self, observations: Iterable[Observation], *, in_order: bool = False) -> None:
        """Append rows; rows with the same ids are kept side by side.

        `in_order`: what is added afterwards becomes visible no earlier than these.
        """
        marks = ", ".join("?" * len(_FIELDS))
        with self._lock, self._connection:
            rows = [
                _row(
                    msgspec.structs.replace(
                        observation, visible_ms=self._queued("observation", observation.visible_ms, in_order)
                    )
                )
                for observation in observations
            ]
            self._connection.executemany(f"INSERT INTO observation ({_COLUMNS}) VALUES ({marks})", rows)

    def observations(self, where: Condition, limit: int) -> list[Observation]:
        """The newest visible rows that meet the condition; of equal rows the last stored comes first."""
        sql = (
            f"SELECT {_COLUMNS} FROM observation WHERE visible_ms <= ? AND {where.sql} "
            "ORDER BY start_ms DESC, trace_hash DESC, id DESC, rowid DESC LIMIT ?"
        )
        return [_observation(row) for row in self._select(sql, (_now_ms(), *where.params, limit))]

    def copies(self, trace_ids: Sequence[str]) -> dict[tuple[str, str, int], list[Observation]]:
        """The rows of these traces that share ids and start time with another, in order of storing."""
        marks = ", ".join("?" * len(trace_ids))
        keys = self._select(
            f"SELECT trace_id, id, start_ms FROM observation WHERE trace_id IN ({marks}) "
            "GROUP BY trace_id, id, start_ms HAVING count(*) > 1",
            tuple(trace_ids),
        )
        sql = (
            f"SELECT {_COLUMNS} FROM observation "
            "WHERE trace_id = ? AND id = ? AND start_ms = ? AND visible_ms <= ? ORDER BY rowid"
        )
        now = _now_ms()
        return {key: [_observation(row) for row in self._select(sql, (*key, now))] for key in keys}

    def observations_with_id(self, trace_id: str, observation_id: str) -> list[Observation]:
        """All copies of one observation, also those not yet visible."""
        sql = f"SELECT {_COLUMNS} FROM observation WHERE trace_id = ? AND id = ? ORDER BY rowid"
        return [_observation(row) for row in self._select(sql, (trace_id, observation_id))]

    def update_observation(self, trace_id: str, observation_id: str, changes: dict[str, Any]) -> int:
        """Set fields (by name of `Observation`) of every copy; returns how many rows there were."""
        assignments = ", ".join(f'"{name}" = ?' for name in changes)
        values = [_column(name, value) for name, value in changes.items()]
        return self._change(
            f"UPDATE observation SET {assignments} WHERE trace_id = ? AND id = ?",
            (*values, trace_id, observation_id),
        )

    def delete_observations(self, trace_id: str, observation_id: str | None = None) -> int:
        """Remove one observation with its copies, or the whole trace; returns how many rows went."""
        sql, params = "DELETE FROM observation WHERE trace_id = ?", [trace_id]
        if observation_id is not None:
            sql += " AND id = ?"
            params.append(observation_id)
        return self._change(sql, params)

    # OTLP spans

    def add_spans(self, spans: Iterable[OtlpSpan], visible_ms: int, *, in_order: bool = False) -> None:
        """Append spans; spans with the same ids are kept side by side.

        `in_order`: what is added afterwards becomes visible no earlier than these.
        """
        with self._lock, self._connection:
            visible_ms = self._queued("span", visible_ms, in_order)
            parts: dict[bytes, int] = {}
            rows = [
                (
                    span.trace_id, span.span_id, span.service, span.name, span.kind, span.start_us,
                    span.duration_us, visible_ms, span.marks, self._part(span.resource, parts),
                    self._part(span.scope, parts), span.body,
                )
                for span in spans
            ]  # fmt: skip
            self._connection.executemany("INSERT INTO span VALUES (?,?,?,?,?,?,?,?,?,?,?,?)", rows)

    def spans(self, trace_id: str) -> list[OtlpSpan]:
        """The visible spans of a trace, in order of storing."""
        return self._spans(Condition("trace_id = ?", (trace_id,)), "span.rowid")

    def matching_spans(self, where: Condition) -> list[OtlpSpan]:
        """The visible spans that meet the condition, latest start first."""
        return self._spans(where, "start_us DESC, span.rowid DESC")

    def matching_traces(self, where: Condition, limit: int) -> list[str]:
        """Ids of the traces with a visible span that meets the condition, latest start first."""
        sql = (
            f"SELECT trace_id FROM span WHERE visible_ms <= ? AND {where.sql} "
            "GROUP BY trace_id ORDER BY max(start_us) DESC, trace_id LIMIT ?"
        )
        return [trace_id for (trace_id,) in self._select(sql, (_now_ms(), *where.params, limit))]

    def services(self) -> list[str]:
        """The names of all services that sent a visible span."""
        sql = "SELECT DISTINCT service FROM span WHERE visible_ms <= ? ORDER BY service"
        return [name for (name,) in self._select(sql, (_now_ms(),))]

    def operations(self, service: str) -> list[tuple[str, int]]:
        """Span names and kinds of a service."""
        sql = "SELECT DISTINCT name, kind FROM span WHERE service = ? AND visible_ms <= ? ORDER BY name, kind"
        return [(name, kind) for name, kind in self._select(sql, (service, _now_ms()))]

    def replace_span(self, trace_id: str, span_id: str, old: bytes, new: OtlpSpan) -> None:
        """Put another body, and what is known of it, in the place of a stored span."""
        known = (new.body, new.marks, new.name, new.kind, new.start_us, new.duration_us)
        self._change(
            "UPDATE span SET body = ?, marks = ?, name = ?, kind = ?, start_us = ?, duration_us = ? "
            "WHERE trace_id = ? AND span_id = ? AND body = ?",
            (*known, trace_id, span_id, old),
        )

    def delete_span(self, trace_id: str, span_id: str) -> int:
        """Remove a span with its copies; returns how many rows went."""
        return self._change("DELETE FROM span WHERE trace_id = ? AND span_id = ?", (trace_id, span_id))

    def _spans(self, where: Condition, order: str) -> list[OtlpSpan]:
        sql = (
            "SELECT trace_id, span_id, service, name, kind, start_us, duration_us, marks, r.body, s.body, span.body "
            "FROM span JOIN part r ON r.id = span.resource JOIN part s ON s.id = span.scope "
            f"WHERE visible_ms <= ? AND {where.sql} ORDER BY {order}"
        )
        rows = self._select(sql, (_now_ms(), *where.params))
        return [OtlpSpan(**dict(zip(OtlpSpan.__struct_fields__, row, strict=True))) for row in rows]

    def _queued(self, table: str, visible_ms: int, in_order: bool) -> int:
        """When a row becomes visible that would be at `visible_ms` if no queue stood before it."""
        visible_ms = max(visible_ms, self._queued_until_ms[table])
        if in_order:
            self._queued_until_ms[table] = visible_ms
        return visible_ms

    def _last_visible_ms(self, table: str) -> int:
        """Where a backend that was killed goes on: what it queued is kept in order."""
        ((last,),) = self._select(f"SELECT coalesce(max(visible_ms), 0) FROM {table}", ())
        return int(last)

    def _part(self, body: bytes, known: dict[bytes, int]) -> int:
        if body not in known:
            digest = hashlib.sha256(body).digest()
            self._connection.execute("INSERT OR IGNORE INTO part (digest, body) VALUES (?, ?)", (digest, body))
            (known[body],) = self._connection.execute("SELECT id FROM part WHERE digest = ?", (digest,)).fetchone()
        return known[body]

    def _select(self, sql: str, params: Sequence[Any]) -> list[Any]:
        with self._lock:
            return self._connection.execute(sql, params).fetchall()

    def _change(self, sql: str, params: Sequence[Any]) -> int:
        with self._lock, self._connection:
            return self._connection.execute(sql, params).rowcount


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _row(observation: Observation) -> tuple[Any, ...]:
    return tuple(_column(name, getattr(observation, name)) for name in _FIELDS)


def _column(name: str, value: Any) -> Any:
    return msgspec.json.encode(value).decode() if name in _JSON_FIELDS else value


def _observation(row: Sequence[Any]) -> Observation:
    fields = dict(zip(_FIELDS, row, strict=True))
    for name in _JSON_FIELDS:
        fields[name] = msgspec.json.decode(fields[name])
    return Observation(**fields)


def _open(path: Path | None) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(path or ":memory:", check_same_thread=False)
    except sqlite3.Error as error:
        raise _unusable(path, error) from error
    try:
        _prepare(connection, path)
    except BaseException as error:
        connection.close()
        if isinstance(error, sqlite3.Error):
            raise _unusable(path, error) from error
        raise
    connection.create_function("metadata_text", 2, _metadata_text, deterministic=True)
    return connection


def _unusable(path: Path | None, error: sqlite3.Error) -> DevServerError:
    return DevServerError(f"{path}: cannot be opened as a database: {error}; give another --db")


def _prepare(connection: sqlite3.Connection, path: Path | None) -> None:
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if tables and application_id != _APPLICATION_ID:
        raise DevServerError(
            f"{path}: is a database of something else, not of this development backend; give another --db"
        )
    if tables and version != _SCHEMA_VERSION:
        raise DevServerError(
            f"{path}: was written by another version of the development backend "
            f"(schema {version}, this one reads {_SCHEMA_VERSION}); give another --db"
        )
    connection.execute("PRAGMA journal_mode = WAL")
    # A development backend may lose its last second in a power cut; it must not wait for the disk.
    connection.execute("PRAGMA synchronous = OFF")
    if not tables:
        connection.executescript(_SCHEMA)
        connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
        connection.commit()


def _metadata_text(metadata: str, key: str) -> str | None:
    text = msgspec.json.decode(metadata).get(key)
    return text if text is None else str(text)

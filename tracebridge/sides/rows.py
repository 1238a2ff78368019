"""The rows that stand for a side's spans in a Parquet file, written in bounded memory and looked up by number.

A row holds the ids, a digest of each field as it is, digests of what each declared loss changes, and the span itself
as JSON, which engines never read.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from tracebridge import jsonvalue
from tracebridge.sides.digest import (
    DEFAULT_DIGEST,
    FIELDS,
    Column,
    column_name,
    digest_of,
    text_of,
    texts_changed,
    texts_of,
)
from tracebridge.sink import Loss
from tracebridge.span import Span

_GROUP_ROWS: Final = 10_000
_GROUP_BYTES: Final = 16_000_000
_PREFIXES: Final = tuple(b'"%s":' % name.encode() for name in FIELDS)


class RowFile:
    """The rows of one side."""

    def __init__(self, path: Path, losses: Sequence[Loss], *, is_ours: bool = False) -> None:
        """Begin a file at `path`; `losses` are applied to each span one after the other.

        `is_ours` says that spans without a fingerprint are tracebridge's, too.
        """
        self.path = path
        self.spans = 0
        self.kinds: Counter[str] = Counter()
        self.used: set[Column] = set()
        """The columns in which any span has something: at level 0 another value than the default."""
        self._losses = tuple(losses)
        self._is_ours = is_ours
        self._starts: list[int] = []
        self._schema = _schema(len(self._losses))

    def write(self, spans: Iterable[Span]) -> Iterator[int]:
        """Write all spans; yields how many are written after each group of them."""
        with pq.ParquetWriter(self.path, self._schema, compression="zstd", compression_level=1) as writer:
            group = _Group(self.spans)
            for span in spans:
                self._add(group, span)
                if group.rows == _GROUP_ROWS or group.bytes >= _GROUP_BYTES:
                    self._flush(writer, group)
                    yield self.spans
                    group = _Group(self.spans)
            self._flush(writer, group)
        yield self.spans

    def look_up(self, numbers: Iterable[int]) -> dict[int, dict[str, Any]]:
        """The spans with these numbers, as JSON objects that lack what has its default value."""
        by_group: dict[int, list[int]] = {}
        for number in sorted(set(numbers)):
            by_group.setdefault(bisect_right(self._starts, number) - 1, []).append(number)
        found = {}
        with pq.ParquetFile(self.path) as file:
            for place, wanted in by_group.items():
                raw = file.read_row_group(place, columns=["raw"]).column("raw")
                for number in wanted:
                    found[number] = msgspec.json.decode(raw[number - self._starts[place]].as_py())
        return found

    def _add(self, group: _Group, span: Span) -> None:
        texts = texts_of(span)
        group.add(span, self._is_ours or bool(span.fingerprint), _raw(span, texts))
        for number, text in texts.items():
            group.digests(number)[group.rows - 1] = digest_of(text)
        self.used.update((0, number) for number in texts)
        self.kinds[span.kind] += 1
        before = span
        for level, loss in enumerate(self._losses, 1):
            after = loss.apply(before)
            if after is before:
                continue
            for number, left in texts_changed(before, after).items():
                group.changes(level, number)[group.rows - 1] = digest_of(left)
                self.used.add((level, number))
            before = after

    def _flush(self, writer: Any, group: _Group) -> None:
        if group.rows:
            self._starts.append(self.spans)
            self.spans += group.rows
            writer.write_table(group.table(self._schema), row_group_size=_GROUP_ROWS)


class _Group:
    """Rows that are not written yet."""

    def __init__(self, first_number: int) -> None:
        self.rows = 0
        self.bytes = 0
        self._first_number = first_number
        self._ids: dict[str, list[Any]] = {name: [] for name in ("session_id", "trace_id", "span_id", "marked", "raw")}
        self._digests: dict[int, array[int]] = {}
        self._changes: dict[Column, list[int | None]] = {}

    def add(self, span: Span, marked: bool, raw: bytes) -> None:
        ids = (_utf8(span.session_id), _utf8(span.trace_id), _utf8(span.span_id), marked, raw)
        for column, value in zip(self._ids.values(), ids, strict=True):
            column.append(value)
        self.rows += 1
        self.bytes += len(raw)

    def digests(self, number: int) -> array[int]:
        if number not in self._digests:
            self._digests[number] = array("q", [DEFAULT_DIGEST]) * _GROUP_ROWS
        return self._digests[number]

    def changes(self, level: int, number: int) -> list[int | None]:
        return self._changes.setdefault((level, number), [None] * _GROUP_ROWS)

    def table(self, schema: Any) -> Any:
        numbers = range(self._first_number, self._first_number + self.rows)
        columns = [pa.array(numbers, pa.int64())]
        columns += [pa.array(values, schema.field(name).type) for name, values in self._ids.items()]
        nothing = pa.nulls(self.rows, pa.int64())
        defaults = pa.array(array("q", [DEFAULT_DIGEST]) * self.rows)
        levels = (len(schema.names) - len(columns)) // len(FIELDS)
        for number in range(len(FIELDS)):
            digests = self._digests.get(number)
            columns.append(defaults if digests is None else pa.array(digests[: self.rows], pa.int64()))
        for level in range(1, levels):
            for number in range(len(FIELDS)):
                changes = self._changes.get((level, number))
                columns.append(nothing if changes is None else pa.array(changes[: self.rows], pa.int64()))
        return pa.table(columns, schema=schema)


def _schema(losses: int) -> Any:
    fields = [pa.field("number", pa.int64())]
    fields += [pa.field(name, pa.string()) for name in ("session_id", "trace_id", "span_id")]
    fields += [pa.field("marked", pa.bool_()), pa.field("raw", pa.binary())]
    fields += [
        pa.field(column_name((level, number)), pa.int64())
        for level in range(losses + 1)
        for number in range(len(FIELDS))
    ]
    return pa.schema(fields)


def _raw(span: Span, texts: dict[int, bytes]) -> bytes:
    entries = [_PREFIXES[number] + text for number, text in texts.items()]
    for name in ("trace_id", "span_id", "fingerprint"):
        entries.append(b'"%s":%s' % (name.encode(), text_of(getattr(span, name))))
    return b"{" + b",".join(entries) + b"}"


def _utf8(text: str) -> str:
    return text if text.isascii() else jsonvalue.text(text)

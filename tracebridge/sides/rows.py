"""The rows that stand for a side's spans in a Parquet file, written in bounded memory and looked up by number.

A row holds the ids, a digest of each field as it is, digests of what each declared loss changes, where in the journal
the span stands, and the span itself as JSON, which engines never read.
"""

from __future__ import annotations

import struct
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
from tracebridge.span import Edge, Span

_GROUP_ROWS: Final = 10_000
_GROUP_BYTES: Final = 16_000_000
_PREFIXES: Final = tuple(b'"%s":' % name.encode() for name in FIELDS)
_IDS: Final = ("session_id", "run_id", "trace_id", "span_id")
_EDGES: Final = {FIELDS.index(name): name for name in ("opened", "closed")}
_PLACES: Final = tuple(f"{name}_{what}" for what in ("at", "as") for name in _EDGES.values())
"""After all losses, the places of the edges in the journal, and digests of the edges without them."""


class RowFile:
    """The rows of one side."""

    def __init__(self, path: Path, losses: Sequence[Loss], *, is_ours: bool = False, with_places: bool = False) -> None:
        """Begin a file at `path`; `losses` are applied to each span one after the other.

        `is_ours` says that spans without a fingerprint are tracebridge's, too; `with_places`, that it is to be told
        where in a journal they stand, which takes a while.
        """
        self.path = path
        self.spans = 0
        self.kinds: Counter[str] = Counter()
        self.used: set[Column] = set()
        """The columns in which any span has something: at level 0 another value than the default."""
        self._losses = tuple(losses)
        self._is_ours, self._with_places = is_ours, with_places
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
        digests = {number: digest_of(text) for number, text in texts.items()}
        for number, digest in digests.items():
            group.digests(number)[group.rows - 1] = digest
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
        if self._with_places:
            edges = [(getattr(span, name), getattr(before, name)) for name in _EDGES.values()]
            digests |= zip(_EDGES, (_placeless(edge) for edge, _ in edges), strict=True)
            group.add_places(
                [left and left.ordinal for _, left in edges],
                [
                    digests[number] if left is edge else _placeless(left)
                    for number, (edge, left) in zip(_EDGES, edges, strict=True)
                ],
                _digest_of_all(digests),
            )

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
        self._ids: dict[str, list[Any]] = {name: [] for name in (*_IDS, "marked", "raw")}
        self._places: dict[str, list[int | None]] = {name: [] for name in (*_PLACES, "alike")}
        self._digests: dict[int, array[int]] = {}
        self._changes: dict[Column, list[int | None]] = {}

    def add(self, span: Span, marked: bool, raw: bytes) -> None:
        ids = (_utf8(getattr(span, name)) for name in _IDS)
        for column, value in zip(self._ids.values(), (*ids, marked, raw), strict=True):
            column.append(value)
        self.rows += 1
        self.bytes += len(raw)

    def add_places(self, places: list[int | None], edges: list[int], alike: int) -> None:
        for column, value in zip(self._places.values(), (*places, *edges, alike), strict=True):
            column.append(value)

    def digests(self, number: int) -> array[int]:
        if number not in self._digests:
            self._digests[number] = array("q", [DEFAULT_DIGEST]) * _GROUP_ROWS
        return self._digests[number]

    def changes(self, level: int, number: int) -> list[int | None]:
        return self._changes.setdefault((level, number), [None] * _GROUP_ROWS)

    def table(self, schema: Any) -> Any:
        numbers = range(self._first_number, self._first_number + self.rows)
        columns = [pa.array(numbers, pa.int64())]
        nothing = pa.nulls(self.rows, pa.int64())
        columns += [pa.array(values, schema.field(name).type) for name, values in self._ids.items()]
        columns += [pa.array(places, pa.int64()) if places else nothing for places in self._places.values()]
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
    fields += [pa.field(name, pa.string()) for name in _IDS]
    fields += [pa.field("marked", pa.bool_()), pa.field("raw", pa.binary())]
    fields += [pa.field(name, pa.int64()) for name in (*_PLACES, "alike")]
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


def _placeless(edge: Edge | None) -> int:
    """A digest of an edge, wherever it stands in the journal."""
    return DEFAULT_DIGEST if edge is None else digest_of(text_of(msgspec.structs.replace(edge, ordinal=0)))


def _digest_of_all(digests: dict[int, int]) -> int:
    return digest_of(struct.pack(f"<{len(FIELDS)}q", *(digests.get(n, DEFAULT_DIGEST) for n in range(len(FIELDS)))))


def _utf8(text: str) -> str:
    return text if text.isascii() else jsonvalue.text(text)

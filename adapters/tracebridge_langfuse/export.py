"""Files of LangFuse's blob-storage export, as spans: JSON lines of the source "enriched observations".

A row has the columns of the v2 observations API under other names, and as the database has them: metadata values are
JSON text, whole numbers may be text, times have no zone and are UTC. As LangFuse 4.16 writes it.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final, cast

import msgspec

from tracebridge.errors import BackendError
from tracebridge.event import Json
from tracebridge.sink import Loss
from tracebridge.span import Span
from tracebridge_langfuse import exact
from tracebridge_langfuse.losses import LOSSES
from tracebridge_langfuse.observation import observation_of, span_of
from tracebridge_langfuse.served import served_metadata

_SOURCE: Final = "choose the export source `Enriched observations` and the file type JSONL"
_TIMES: Final = ("start_time", "end_time", "completion_start_time")
_OBJECTS: Final = ("model_parameters", "usage_details", "cost_details")

Key = tuple[str, str, str]
"""Trace id, observation id and start."""


def _without(**defaults: Any) -> Any:
    return lambda span: msgspec.structs.replace(span, **defaults)


def _without_io(span: Span) -> Span:
    opened = span.opened
    if span.kind == "event" and opened is not None and opened.fields:
        # all that an event of an unknown type says stands in the input
        opened = msgspec.structs.replace(opened, fields={})
    return msgspec.structs.replace(span, input=None, output=None, tool_calls=[], thinking=None, opened=opened)


_GROUPS: Final[Mapping[str, tuple[str, Loss]]] = {
    group: (column, Loss(name=f"export-without-{group}", words=words, apply=apply))
    for group, column, words, apply in (
        (
            "io",
            "input",
            "The export leaves inputs and outputs out, and with them tool calls and reasoning.",
            _without_io,
        ),
        (
            "time",
            "completion_start_time",
            "The export leaves out when an answer began.",
            _without(time_to_first_token_ms=None),
        ),
        (
            "model",
            "provided_model_name",
            "The export leaves models and their parameters out.",
            _without(model="", model_parameters={}),
        ),
        ("usage", "usage_details", "The export leaves token counts and costs out.", _without(usage={}, cost=None)),
        ("prompt", "prompt_name", "The export leaves out which prompts were used.", _without(prompt=None)),
        (
            "trace_context",
            "trace_name",
            "The export leaves out the agent's name, tags and releases.",
            _without(agent_name="", tags=(), release=""),
        ),
    )
}
"""Groups of fields that an export may leave out, each with a column by which it is recognised."""

_NEEDED: Final = {"basic": "session_id", "metadata": "metadata"}
"""Groups without which no span can be told, not even whose it is."""


class LangfuseExport:
    """A `tracebridge.sink.Export`."""

    def __init__(self, files: Sequence[Path], losses: tuple[Loss, ...]) -> None:
        self._files = files
        self.losses = losses

    @classmethod
    def open(cls, files: Sequence[Path]) -> LangfuseExport:
        """Look at the first row, which tells what the export holds.

        Of an export's other files, those of scores, nothing is read.

        Raises:
            BackendError: it cannot be read, or is no export of enriched observations.
        """
        files = tuple(file for file in files if file.parent.name != "scores")
        for file, number, row in _rows(files):
            absent = [group for group, column in _NEEDED.items() if column not in row]
            if absent:
                raise BackendError(
                    f"{file}, line {number}: this export lacks the field groups {', '.join(absent)}, or is none of "
                    f"observations: {_SOURCE}, with these groups"
                )
            lacking = tuple(loss for column, loss in _GROUPS.values() if column not in row)
            return cls(files, (*LOSSES, *lacking))
        return cls(files, LOSSES)

    def read(self) -> Iterator[Span]:
        """Yield a span for every row.

        The windows of two files that follow each other have their last and first moment in common, and what begins in
        it stands in both: it is yielded once.
        """
        lasts: dict[Key, None] = {}
        earlier: dict[Key, None] = {}
        current, latest = None, ""
        for file, number, row in _rows(self._files):
            if file != current:
                current, latest, earlier, lasts = file, "", lasts, {}
            try:
                key = (row["trace_id"], row["id"], row["start_time"])
                span = span_of(observation_of(_as_served(row)))
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise BackendError(
                    f"{file}, line {number}: no row of LangFuse's export ({type(error).__name__}: {error})"
                ) from error
            if key[2] > latest:
                latest, lasts = key[2], {}
            if key[2] == latest:
                lasts[key] = None
            if key not in earlier:
                yield span


def _rows(files: Iterable[Path]) -> Iterator[tuple[Path, int, dict[str, Any]]]:
    for file in files:
        number = 0
        try:
            with _opened(file) as lines:
                for number, line in enumerate(lines, 1):
                    if line.strip():
                        yield file, number, _row(line)
        except (OSError, EOFError, ValueError, zlib.error) as error:
            raise BackendError(f"{file}, line {number}: cannot be read ({error}); {_SOURCE}") from error


def _row(line: bytes) -> dict[str, Any]:
    row = exact.decode(line.decode())
    if type(row) is not dict:
        raise ValueError("no JSON object")
    return row


def _opened(file: Path) -> IO[bytes]:
    # compressed files are told by what is in them: some tools take the compression off and leave the name
    with file.open("rb") as probe:
        is_compressed = probe.read(2) == b"\x1f\x8b"
    return cast("IO[bytes]", gzip.open(file, "rb")) if is_compressed else file.open("rb")


def _as_served(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as the API shows it, by the names that `observation_of` goes by."""
    fields = dict(row)
    for name in _TIMES:
        fields[name] = _moment(row.get(name))
    for name in _OBJECTS:
        fields[name] = _object(row.get(name))
    for name in ("input", "output"):
        if row.get(name) is not None and type(row[name]) is not str:
            fields[name] = exact.encode(row[name])
    fields["metadata"] = {key: _metadata(value) for key, value in _object(row.get("metadata")).items()}
    fields["usage_details"] = {key: int(value) for key, value in fields["usage_details"].items()}
    fields["cost_details"] = {key: float(value) for key, value in fields["cost_details"].items()}
    fields["model"] = row.get("provided_model_name") or ""
    # the database's own kind of truth is a number
    fields["is_root_observation"] = row.get("is_root_observation") in (True, 1)
    version = row.get("prompt_version")
    fields["prompt_version"] = None if version is None else int(version)
    return fields


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text.replace("Z", "")).replace(tzinfo=UTC) if text else None


def _object(value: Json) -> dict[str, Any]:
    read = exact.decode(value) if type(value) is str and value else value
    return read if type(read) is dict else {}


def _metadata(value: Json) -> Json:
    if type(value) is not str:
        return value
    try:
        return served_metadata(value)
    except ValueError:
        return value

"""Spans as JSON lines: what a side gave, kept to be compared again later or elsewhere.

A line is a `Span` with the fields that do not have their default value. Files that end in `.gz` are compressed.
"""

from __future__ import annotations

import errno
import gzip
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Final, Literal, cast

import msgspec

from tracebridge import jsonvalue
from tracebridge.errors import ConfigurationError
from tracebridge.sides.side import Notes, Side
from tracebridge.sink import Loss
from tracebridge.span import Span

_SUFFIXES: Final = (".jsonl", ".jsonl.gz")
_OF_A_JOURNAL: Final = "journal"
"""The mark of what a folder gave: it is tracebridge's, and was sent under no rules."""


def dump_side(name: str, path: Path, losses: Sequence[Loss]) -> Side:
    """The spans of a file, or of all `.jsonl` and `.jsonl.gz` files of a folder; `losses` are those of their source.

    Raises:
        ConfigurationError: there is no such file.
    """
    files = dump_files(name, path)
    return Side(name=name, read=partial(_spans, files), losses=tuple(losses), is_ours=False)


def dump_files(name: str, path: Path) -> tuple[Path, ...]:
    """The files of JSON lines that `path` names: itself, or those below it, in the order of their names.

    Raises:
        ConfigurationError: there are none.
    """
    if path.is_file():
        return (path,)
    files = tuple(sorted(file for file in path.rglob("*") if file.name.endswith(_SUFFIXES)))
    if not files:
        what = "holds no .jsonl or .jsonl.gz file" if path.is_dir() else "is not there"
        raise ConfigurationError(f"{name}: {path} {what}; name a file, or a folder of such files")
    return files


def write_dump(path: Path, spans: Iterable[Span]) -> Iterator[Span]:
    """Write spans to a new file while they pass through. It is there once all have: a part of them looks like a whole.

    Raises:
        OSError: it cannot be written, or is there already.
    """
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with _opened(unfinished, "wb", is_compressed=_is_compressed(path)) as file:
            for span in spans:
                file.write(_line(span) + b"\n")
                yield span
        os.rename(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _spans(files: Sequence[Path], notes: Notes) -> Iterator[Span]:
    decoder = msgspec.json.Decoder(Span)
    for path in files:
        try:
            with _opened(path, "rb", is_compressed=_is_compressed(path)) as file:
                for number, line in enumerate(file, 1):
                    yield _span(decoder, line, path, number)
        except (OSError, EOFError, zlib.error) as error:
            raise ConfigurationError(f"{path}: cannot be read: {error}") from error


def _span(decoder: msgspec.json.Decoder[Span], line: bytes, path: Path, number: int) -> Span:
    try:
        span = decoder.decode(line)
    except msgspec.MsgspecError as error:
        raise ConfigurationError(
            f"{path}, line {number}: no span ({error}); `spans:` reads what --save-left and --save-right write"
        ) from error
    # a journal's spans bear no mark; only tracebridge's tell where they stood in one
    if not span.fingerprint and (span.opened is not None or span.closed is not None):
        return msgspec.structs.replace(span, fingerprint=_OF_A_JOURNAL)
    return span


def _line(span: Span) -> bytes:
    defaults = _DEFAULTS
    told = {
        name: value
        for name in Span.__struct_fields__
        if (value := getattr(span, name)) is not None and not (name in defaults and value == defaults[name])
    }
    return jsonvalue.encode(told)


_DEFAULTS: Final = {
    field.name: field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
    for field in msgspec.structs.fields(Span)
    if not field.required
}


def _is_compressed(path: Path) -> bool:
    return path.suffix == ".gz"


def _opened(path: Path, mode: Literal["rb", "wb"], *, is_compressed: bool) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(path, mode)) if is_compressed else path.open(mode)

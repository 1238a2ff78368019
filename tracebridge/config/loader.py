"""Finds, reads and checks a configuration."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Final

from tracebridge.config.conversion import Conversion
from tracebridge.config.document import Document, Entry, MalformedError, decode, from_mapping, from_yaml
from tracebridge.config.expectation import closest
from tracebridge.config.mistake import Mistake
from tracebridge.config.section import SECTION, read
from tracebridge.config.settings import Settings
from tracebridge.errors import ConfigurationError
from tracebridge.log import log
from tracebridge.registry import Registry, installed

PATH_VARIABLE: Final = "TRACEBRIDGE_CONFIG"
"""The environment variable that names the configuration file."""

DEFAULT_FILE: Final = "tracebridge.yaml"
"""The file, in the current directory, that is read when none is named."""

Source = str | PathLike[str] | bytes | Mapping[str, Any] | None
"""A file's path, or its content; a mapping of the same form as the file; or None for the defaults."""


def locate(option: str | None = None, environ: Mapping[str, str] = os.environ) -> Path | None:
    """The file to read: `option`, else `$TRACEBRIDGE_CONFIG`, else `./tracebridge.yaml` if there is one."""
    named = option or environ.get(PATH_VARIABLE)
    if named:
        return Path(named)
    # not `Path.exists`, which raises where the current directory may not be looked into
    return Path(DEFAULT_FILE) if os.path.exists(DEFAULT_FILE) else None


def load(
    source: Source = None, environ: Mapping[str, str] = os.environ, *, sink_types: Registry | None = None
) -> Settings:
    """Read a configuration. A sink whose plug-in is defective is told in the log and changes nothing for the others.

    Raises:
        ConfigurationError: it has a mistake. The message tells the first one, and how many there are.
    """
    settings, mistakes = examine(source, environ, sink_types=sink_types)
    if settings is None:
        raise ConfigurationError(_message(mistakes))
    for sink in settings.defective_sinks:
        log.error("sink %s is not delivered to: %s; what it is owed stays in the journal", sink.name, sink.defect)
    return settings


def examine(
    source: Source = None, environ: Mapping[str, str] = os.environ, *, sink_types: Registry | None = None
) -> tuple[Settings | None, tuple[Mistake, ...]]:
    """Read a configuration and tell all of its mistakes; the settings are None if there is any."""
    conversion = Conversion(_name(source), environ)
    try:
        document = _document(source)
    except MalformedError as error:
        conversion.report("", error.line, error.problem, error.remedy)
        return None, tuple(conversion.mistakes)
    section = _section(document, conversion)
    settings = None if section is None else read(section, conversion, lambda: sink_types or installed())
    mistakes = sorted(conversion.mistakes, key=lambda mistake: mistake.line or 0)
    return (settings if isinstance(settings, Settings) else None), tuple(mistakes)


def _name(source: Source) -> str:
    if source is None:
        return "defaults"
    if isinstance(source, bytes):
        return "standard input"
    return "configuration" if isinstance(source, Mapping) else fspath(source)


def _document(source: Source) -> Document:
    if source is None:
        return from_mapping({SECTION: {}}, SECTION)
    if isinstance(source, Mapping):
        return from_mapping(source, SECTION)
    if isinstance(source, bytes):
        return _document_of(source)
    try:
        content = Path(source).read_bytes()
    except FileNotFoundError:
        raise MalformedError("there is no such file", f"create it, or correct --config or ${PATH_VARIABLE}") from None
    except OSError as error:
        raise MalformedError(f"the file cannot be read ({error.strerror})", "name a readable file") from None
    return from_yaml(decode(content), SECTION)


def _document_of(content: bytes) -> Document:
    if content.startswith(b"{"):
        # nearly all JSON is YAML, but not what it makes of characters beyond U+FFFF
        try:
            return from_mapping(json.loads(content), SECTION)
        except ValueError:
            pass
    return from_yaml(decode(content), SECTION)


def _section(document: Document, conversion: Conversion) -> Entry | None:
    if not document.sections:
        near = closest(SECTION, document.others)
        problem = "the section is missing" if near is None else f"the section is missing (there is `{near}`)"
        conversion.report(SECTION, None, problem, f"put all settings under `{SECTION}:`")
        return None
    for repeated in document.sections[1:]:
        first = document.sections[0].line
        conversion.report(SECTION, repeated.line, f"the key appears twice (first in line {first})", "keep one of them")
    return document.sections[0]


def _message(mistakes: tuple[Mistake, ...]) -> str:
    more = len(mistakes) - 1
    rest = f" ({more} more: `tracebridge config check` tells all)" if more else ""
    return f"{mistakes[0]}{rest}"

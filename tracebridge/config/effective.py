"""Renders the effective configuration: for people, without what is secret, or whole for another process."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any, Final

import msgspec

from tracebridge.config.section import SECTION
from tracebridge.config.settings import Settings, SinkSettings
from tracebridge.policy import CAPTURE_KEYS
from tracebridge.registry import JOURNAL_TYPE
from tracebridge.secret import MASK, Secret

_CORE_KEYS: Final = (
    "enabled",
    "trace_dir",
    *CAPTURE_KEYS,
    "environment",
    "release",
    "delivery",
    "shutdown_timeout",
    "orphan_after",
    "trace_scope",
    "propagate",
    "migration",
)

# words that no YAML reader takes for anything but text
_PLAIN_WORD: Final = re.compile(r"(?!(?:true|false|null|yes|no|on|off|y|n)\Z)[a-z][a-z0-9_.-]*")


def show(settings: Settings) -> str:
    """Return the effective configuration as YAML, with secrets masked.

    Comments tell where each value came from.
    """
    lines = [f"# source: {settings.source}", f"{SECTION}:"]
    lines += _lines(_section(settings, lambda _: MASK), SECTION, settings.origins)
    return "\n".join(lines) + "\n"


def reveal(settings: Settings) -> bytes:
    """Return the effective configuration as JSON that loads as the same settings, with its secrets in plain text.

    It is for the standard input of a process, never for a disk, an argument or the environment. Sinks that are switched
    off are left out.
    """
    settings = msgspec.structs.replace(settings, sinks=tuple(sink for sink in settings.sinks if sink.enabled))
    return json.dumps({SECTION: _unexpanded(_section(settings, Secret.reveal))}).encode()


def _unexpanded(value: Any) -> Any:
    """The value, such that loading expands nothing in it."""
    if isinstance(value, str):
        return value.replace("${", "$${")
    if isinstance(value, dict):
        return {key: _unexpanded(item) for key, item in value.items()}
    return [_unexpanded(item) for item in value] if isinstance(value, list) else value


def _section(settings: Settings, secret: Callable[[Secret], str]) -> dict[str, Any]:
    capture = msgspec.structs.asdict(settings.capture)
    core = {key: _plain(capture.get(key, getattr(settings, key, None)), secret) for key in _CORE_KEYS}
    sinks = {sink.name: _sink(sink, secret) for sink in settings.sinks}
    return core | {"sinks": {JOURNAL_TYPE: _journal(settings)} | sinks}


def _journal(settings: Settings) -> dict[str, Any]:
    shown: dict[str, Any] = {"enabled": settings.keep_journal}
    return shown if settings.keep_journal else shown | {"spool_keep": settings.spool_keep}


def _sink(sink: SinkSettings, secret: Callable[[Secret], str]) -> dict[str, Any]:
    shown = {"type": sink.type, "enabled": sink.enabled}
    own = {} if sink.settings is None else _plain(sink.settings, secret)
    return shown | own | {"policy": _plain(sink.policy, secret)}


def _plain(value: Any, secret: Callable[[Secret], str]) -> Any:
    if isinstance(value, Secret):
        return secret(value)
    if isinstance(value, msgspec.Struct):
        config = value.__struct_config__
        tag = {config.tag_field: config.tag} if config.tag_field else {}
        fields = msgspec.structs.fields(value)
        given = {field.encode_name: getattr(value, field.name) for field in fields}
        return tag | {key: _plain(item, secret) for key, item in given.items() if item is not msgspec.UNSET}
    if isinstance(value, Mapping):
        return {key: _plain(item, secret) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item, secret) for item in value]
    if isinstance(value, Enum):
        return value.value
    return str(value) if isinstance(value, PurePath) else value


def _lines(
    mapping: Mapping[str, Any],
    path: str,
    origins: Mapping[str, str],
    *,
    indent: str = "  ",
    otherwise: str = "default",
) -> list[str]:
    lines: list[str] = []
    for key, value in mapping.items():
        here = f"{path}.{key}"
        if isinstance(value, Mapping) and value:
            origin = origins.get(here)
            lines.append(f"{indent}{_scalar(key)}:{_comment(origin)}")
            # what a variable filled as a whole says so once, above its parts
            below = "" if origin else "as capture" if key == "policy" else otherwise
            lines += _lines(value, here, origins, indent=indent + "  ", otherwise=below)
        else:
            lines.append(f"{indent}{_scalar(key)}: {_scalar(value)}{_comment(origins.get(here, otherwise))}")
    return lines


def _comment(origin: str | None) -> str:
    return f"  # {origin}" if origin else ""


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        return value if _PLAIN_WORD.fullmatch(value) else _quoted(_without_parameters(value))
    if isinstance(value, list):
        return f"[{', '.join(_scalar(item) for item in value)}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_scalar(key)}: {_scalar(item)}' for key, item in value.items())}}}"
    return json.dumps(value)


def _without_parameters(text: str) -> str:
    """A URL with the values of its parameters masked: a key may be among them. One with a placeholder is a template."""
    address, mark, query = text.partition("?")
    if not mark or "://" not in address or "{" in query:
        return text
    pairs = [part.partition("=") for part in query.split("&")]
    return address + mark + "&".join(f"{name}={MASK}" if equals else MASK for name, equals, _ in pairs)


def _quoted(text: str) -> str:
    # imported here, as in document.py: an agent that never shows its configuration need not pay for it
    import yaml

    # `$${` is how a file writes a plain `${`, so that what is shown can be loaded again
    escaped = text.replace("${", "$${")
    dumped: str = yaml.safe_dump(escaped, default_style='"', allow_unicode=True, width=float("inf"))
    return dumped.strip()

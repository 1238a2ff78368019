"""Single values: from what YAML or an environment variable holds to what a setting's type asks for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import msgspec

from tracebridge.config.expectation import alternatives, bare, is_record, item_type
from tracebridge.secret import Secret


class Failed:
    """The type of `FAILED`."""


FAILED: Final = Failed()
"""What a value that could not be read is read as."""


def convert(value: Any, kind: Any, *, strict: bool) -> Any:
    """Read a single value as a `kind`; unless `strict`, texts may stand for numbers, true, false, null."""
    options = [bare(alternative) for alternative in alternatives(kind)]
    if Secret in options:
        if isinstance(value, Secret) or (value is None and None in options):
            return value
        return Secret(value) if isinstance(value, str) else FAILED
    if any(is_record(option) for option in options) and value is not None:
        return FAILED
    try:
        converted = msgspec.convert(value, kind, strict=strict)
    except msgspec.ValidationError:
        return FAILED
    # NaN passes every range check, and no setting means infinity
    return FAILED if isinstance(converted, float) and not math.isfinite(converted) else converted


def split(text: str, kind: Any) -> Any:
    """Read `a=1,b=2` as a mapping and `a,b` as a list, as OpenTelemetry's variables write them."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    for option in map(bare, alternatives(kind)):
        item = item_type(option, Mapping)
        if item is not None:
            pairs = [part.partition("=") for part in parts]
            if not all(separator for _, separator, _ in pairs):
                return FAILED
            values = {key.strip(): convert(unquote(text.strip()), item, strict=False) for key, _, text in pairs}
            return FAILED if FAILED in values.values() else values
        item = item_type(option, Sequence)
        if item is not None:
            items = [convert(part, item, strict=False) for part in parts]
            return FAILED if FAILED in items else collect(items, option)
    return FAILED


def collect(items: list[Any], container: Any) -> Any:
    """Return the items as a tuple where `container` is one, else as a list."""
    return tuple(items) if container is tuple or getattr(container, "__origin__", None) is tuple else items


def holds_credentials(text: str) -> bool:
    """Whether a text is a URL with a user's name in it."""
    try:
        return "://" in text and urlsplit(text).username is not None
    except ValueError:
        return False

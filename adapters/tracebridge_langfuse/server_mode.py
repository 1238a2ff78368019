"""Which LangFuse it is that answers: its version and its write mode decide whether it can be read at all."""

from __future__ import annotations

import json
from typing import Final, Literal

import msgspec

from tracebridge.errors import BackendError
from tracebridge_langfuse.api import PublicApi, RefusedError

WriteMode = Literal["events_only", "dual", "legacy"]
"""Where a v4 server stores what it is sent: `events_only` is its default, `legacy` that of v3."""

_NOT_FOUND: Final = 404
_FIRST_READABLE: Final = 4
METRICS_QUERY: Final = json.dumps(
    {
        "view": "observations",
        "metrics": [{"measure": "count", "aggregation": "count"}],
        "fromTimestamp": "2020-01-01T00:00:00Z",
        "toTimestamp": "2020-01-02T00:00:00Z",
    }
)
"""A small question for `v2/metrics`, a route that is not there in legacy mode."""


class Health(msgspec.Struct, frozen=True):
    """What a server says of itself to anybody."""

    version: str


def health(api: PublicApi) -> Health:
    """Ask a server for its version.

    Raises:
        BackendError: it cannot be asked, or is no LangFuse.
    """
    return api.get("health", msgspec.json.Decoder(Health).decode)


def write_mode(api: PublicApi) -> WriteMode:
    """Ask a v4 server for its write mode, by which of its routes it serves.

    Raises:
        BackendError: it cannot be asked.
    """
    if not _serves(api, "traces", {"limit": "1"}):
        return "events_only"
    return "dual" if _serves(api, "v2/metrics", {"query": METRICS_QUERY}) else "legacy"


def refuse_legacy_mode(api: PublicApi) -> None:
    """Tell an empty answer from legacy mode's, where the v2 route answers and never has any data.

    Raises:
        BackendError: the server runs in legacy mode, or cannot be asked.
    """
    if write_mode(api) == "legacy":
        raise BackendError(
            f"{api.place} runs in the write mode `legacy`, in which nothing can be read through "
            "/api/public/v2/observations; what was sent is not lost. Let it run in `events_only` (the default of v4) "
            "or `dual`: set LANGFUSE_MIGRATION_V4_WRITE_MODE for its web and worker containers"
        )


def missing_route(api: PublicApi, error: RefusedError) -> BackendError:
    """What to say about a server that does not know the v2 observations."""
    try:
        version = health(api).version
    except BackendError:
        return BackendError(
            f"{error}; no LangFuse answers at this address: check that `host` is the server's address, without a path"
        )
    if _major(version) < _FIRST_READABLE:
        return BackendError(
            f"{api.place} runs LangFuse {version}, which cannot be read back: that needs LangFuse v4 or later. "
            f"Upgrade the server; what is sent to it meanwhile cannot be validated ({error})"
        )
    return BackendError(
        f"{error}; yet LangFuse {version} answers there: check that what stands before the server passes on "
        "/api/public/v2/"
    )


def _serves(api: PublicApi, route: str, parameters: dict[str, str]) -> bool:
    try:
        api.get(route, msgspec.json.decode, parameters)
    except RefusedError as error:
        if error.status != _NOT_FOUND:
            raise
        return False
    return True


def _major(version: str) -> int:
    text = version.strip().lstrip("vV").partition(".")[0]
    return int(text) if text.isdecimal() else _FIRST_READABLE

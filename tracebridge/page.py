"""How a sink type tells where a person looks at a trace: `Paged`, which a sink type MAY be."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import msgspec


@runtime_checkable
class Paged(Protocol):
    """What a sink type has whose backend shows traces on pages."""

    def trace_url(self, settings: msgspec.Struct, trace_id: str) -> str:
        """The address of a trace's page, without credentials; empty if the settings do not tell. It asks nobody."""
        ...

"""What can go wrong when the development backend starts."""

from __future__ import annotations

from tracebridge.errors import TracebridgeError


class DevServerError(TracebridgeError):
    """The development backend cannot start: says why and what to do."""

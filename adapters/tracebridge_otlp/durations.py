"""The lengths of time that a sink's settings take."""

from __future__ import annotations

from typing import Annotated

import msgspec

Seconds = Annotated[float, msgspec.Meta(gt=0, le=1_000_000_000)]
"""Thirty years at most, as all lengths of time in a configuration."""
RequestSeconds = Annotated[float, msgspec.Meta(gt=0, le=2_147_483)]
"""24 days at most, as sockets count milliseconds in 31 bits."""

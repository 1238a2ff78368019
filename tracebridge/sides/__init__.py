"""Any two sides, at any size: a folder, a live backend, a backend's export, a dump of spans."""

from tracebridge.sides.comparing import SidesVerdict, compare_sides
from tracebridge.sides.engine import Settings
from tracebridge.sides.side import Notes, Side

__all__ = ["Notes", "Settings", "Side", "SidesVerdict", "compare_sides"]

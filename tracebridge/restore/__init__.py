"""Restoring: the way back from a backend to the JSONL folder that its spans were made of."""

from tracebridge.restore.folder import ExistingSessionError, OutFolderError
from tracebridge.restore.record import Restoration, RestoredSession, Shortfall
from tracebridge.restore.restorer import Restorer, Selection

__all__ = [
    "ExistingSessionError",
    "OutFolderError",
    "Restoration",
    "RestoredSession",
    "Restorer",
    "Selection",
    "Shortfall",
]

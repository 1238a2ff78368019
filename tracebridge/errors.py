"""The errors that tracebridge raises. Each message says what is wrong, where, and what to do."""

from __future__ import annotations


class TracebridgeError(Exception):
    """Base of every error that tracebridge raises on purpose."""


class ConfigurationError(TracebridgeError):
    """The configuration cannot be used: names the file, the key's path and the line."""


class MissingExtraError(TracebridgeError):
    """A part was asked for whose optional packages are not installed: names the extra to install."""


class StateError(TracebridgeError):
    """The delivery state cannot be used: it is newer than this tracebridge, not ours, or damaged."""


class PassingStateError(StateError):
    """The delivery state cannot be used at the moment: the disk is full, say, or the file was deleted."""


class DamagedStateError(StateError):
    """The file of the delivery state is damaged: a shipper moves it away and makes a new one."""


class ForkedError(TracebridgeError):
    """Something cannot be used in this process, because of what its parent was using when it forked."""


class UnsupportedFileSystemError(TracebridgeError):
    """The trace folder lies where locks and appends cannot be relied on."""


class BackendError(TracebridgeError):
    """A backend could not be read: names the backend, what was asked and what it answered."""


class IncompleteAnswerError(BackendError):
    """A backend showed only a part of what it was asked for, and said so; asked for something else, it may show all.

    Says what would make it show the whole.
    """


class BusyBackendError(BackendError):
    """A backend asked to be read later, and the caller did not want to wait for that."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        """`retry_after_s` is how long it asked to be left alone, in seconds."""
        super().__init__(message)
        self.retry_after_s = retry_after_s

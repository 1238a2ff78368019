"""Which version of a distribution is installed."""

from __future__ import annotations

from functools import cache


def own_version() -> str:
    """Tracebridge's own version, in words where it has none."""
    return installed_version() or "(a checkout that is not installed)"


@cache
def installed_version(distribution: str = "tracebridge") -> str:
    """Return its version, "" if it is not installed: tracebridge itself may run from a checkout."""
    # looked for when somebody asks, because it takes longer to load than a command to run
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""

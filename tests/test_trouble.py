from __future__ import annotations

import errno

import pytest

from tracebridge.trouble import Trouble


def test_trouble_is_counted_by_kind_and_logged_once_per_kind(caplog: pytest.LogCaptureFixture) -> None:
    trouble = Trouble()
    for _ in range(3):
        trouble.report("journal", OSError(errno.ENOSPC, "full"), "The event is lost")
    trouble.report("journal", OSError(errno.EROFS, "read-only"), "The event is lost")
    trouble.report("tracing", KeyError("x"), "Please report it")
    assert trouble.counts == {"journal: ENOSPC": 3, "journal: EROFS": 1, "tracing: KeyError": 1}
    assert [record.getMessage().split(":")[1] for record in caplog.records] == [" ENOSPC", " EROFS", " KeyError"]


def test_a_test_sees_every_error() -> None:
    seen: list[BaseException] = []
    trouble = Trouble(seen.append)
    errors = [KeyError("x"), KeyError("y")]
    for error in errors:
        trouble.report("tracing", error, "")
    assert seen == errors

"""Options of the whole test suite."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest


@pytest.hookimpl(optionalhook=True)  # where pytest-xdist is not installed, nobody asks
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are processors, because a third of a test's time is waiting for other processes."""
    return (os.cpu_count() or 1) + 1


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--no-skips",
        action="store_true",
        help="a test that is skipped fails: for runs that must not leave anything out",
    )
    parser.addoption(
        "--every-call",
        action="store_true",
        help="the slow tests that kill a process do so at each of its system calls, not at 75 of them: for an hour",
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _refuse_skip(item.config, report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _refuse_skip(collector.config, report)
    return report


def _refuse_skip(config: pytest.Config, report: pytest.TestReport | pytest.CollectReport) -> None:
    expected_failure = hasattr(report, "wasxfail")
    if report.skipped and not expected_failure and config.getoption("--no-skips"):
        report.outcome = "failed"
        report.longrepr = f"skipped, and --no-skips is given: {_reason(report)}"


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    match report.longrepr:
        case (str(path), int(line), str(reason)):
            return f"{path}:{line}: {reason}"
        case other:
            return str(other)

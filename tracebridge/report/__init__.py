"""Reports of validations: for a terminal, for CI (JUnit), and for people who must sign off (HTML)."""

from tracebridge.report import junit, page, terminal
from tracebridge.report.record import Day, DeclaredLoss, Report, SinkReport

__all__ = ["Day", "DeclaredLoss", "Report", "SinkReport", "junit", "page", "terminal"]

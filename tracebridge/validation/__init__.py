"""Validation: does a backend hold what the journal says it should, span by span?"""

from tracebridge.validation.comparison import Comparison, Difference, Finding, compare
from tracebridge.validation.scope import Scope
from tracebridge.validation.validator import Validator, without_reader
from tracebridge.validation.verdict import Summary, Uncompared, Verdict

__all__ = [
    "Comparison",
    "Difference",
    "Finding",
    "Scope",
    "Summary",
    "Uncompared",
    "Validator",
    "Verdict",
    "compare",
    "without_reader",
]

"""What tracebridge's own tests and its users' tests share."""

from tracebridge.testing.faults import Fault, FaultError, FaultPlan, Faults

__all__ = ["Fault", "FaultError", "FaultPlan", "Faults"]

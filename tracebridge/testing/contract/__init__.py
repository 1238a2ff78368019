"""The sink contract as tests that any sink must pass; `docs/sink-contract.md` says in words what they check.

A plug-in's author subclasses `SinkContract` in a pytest module and provides one fixture. Needs `tracebridge[testing]`.
"""

import pytest

# before they are imported, so that a failed assertion of theirs shows its values
pytest.register_assert_rewrite(
    *(f"{__name__}.{module}" for module in ("answers", "declarations", "deliveries", "readings", "workplace"))
)

from tracebridge.testing.contract.backend import BackendUnderTest, FaultCase  # noqa: E402
from tracebridge.testing.contract.suite import SinkContract  # noqa: E402

__all__ = ["BackendUnderTest", "FaultCase", "SinkContract"]

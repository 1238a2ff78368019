"""`SinkContract`: all cases that a sink must pass, for a plug-in's tests to inherit."""

from __future__ import annotations

from tracebridge.testing.contract.answers import AnswerCases
from tracebridge.testing.contract.declarations import DeclarationCases
from tracebridge.testing.contract.deliveries import DeliveryCases
from tracebridge.testing.contract.readings import ReadingCases


class SinkContract(DeclarationCases, AnswerCases, DeliveryCases, ReadingCases):
    """The sink contract.

    Subclass it as `Test...` and give it a fixture `backend`:

        class TestWebhook(SinkContract):
            @pytest.fixture
            def backend(self) -> Iterator[BackendUnderTest]:
                with FaultyServer(app) as server:
                    yield BackendUnderTest(sink_type=sink_type, settings=..., faults=server.faults, ...)

    A case that the backend cannot express is declared in `BackendUnderTest.unsupported`; pytest reports it as an
    expected failure with the reason given there.
    """

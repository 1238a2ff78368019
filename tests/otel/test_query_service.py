from __future__ import annotations

from itertools import repeat

import pytest

from tests.otlp.scripted_server import dripping, flooding, scripted_server
from tracebridge.errors import BackendError
from tracebridge_otel.configuration import ReaderSettings
from tracebridge_otel.query_service import QueryService
from tracebridge_otlp.http_transport import Certificates


@pytest.mark.parametrize("status", ["200 OK", "500 It broke"])
def test_an_answer_that_comes_byte_by_byte_is_given_up(status: str) -> None:
    """Else the shipper, which asks for what was not answered for, would send nothing more."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: 9999999\r\n\r\n".encode()
    with scripted_server(dripping(head, repeat(b" "))) as url:
        service = QueryService("Jaeger", ReaderSettings(url=url, timeout=0.1), Certificates())
        with pytest.raises(BackendError, match=r"ReadTimeout: not whole after 0\.5 s"):
            service.get("/api/v3/traces", {}, "application/json")
        service.close()


def test_of_an_error_that_never_ends_its_status_is_told_and_no_more_of_it_is_kept() -> None:
    head = b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\nContent-Length: 999999999999\r\n\r\nno entry"
    with scripted_server(flooding(head, b" " * 65_536)) as url:
        service = QueryService("Jaeger", ReaderSettings(url=url, timeout=2), Certificates())
        with pytest.raises(BackendError, match="HTTP 403: no entry"):
            service.get("/api/v3/traces", {}, "application/json")
        service.close()

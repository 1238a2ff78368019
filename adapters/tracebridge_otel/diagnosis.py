"""What `tracebridge doctor` can tell of an OTLP endpoint, and of where its spans are read back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any, Final

import httpx
import msgspec

from tracebridge.diagnosis import Check
from tracebridge.sink import Outcome, Receipt
from tracebridge_otel.certificates import certificates_of
from tracebridge_otel.configuration import OtelSettings, ReaderSettings
from tracebridge_otel.sink import OtelSink
from tracebridge_otlp.answer import Answer
from tracebridge_otlp.http_client import client_for
from tracebridge_otlp.http_transport import tls_context
from tracebridge_otlp.reachability import Exchange, ask, clock_check, reach, said, silence
from tracebridge_otlp.secrecy import Redactor, header_fields

_READER: Final = "reader "
_NOT_LOOKED_AT: Final = "not looked at, because something before it failed"


def diagnose(settings: OtelSettings, timeout_s: float) -> Iterator[Check]:
    """Yield what is found, the nearest first; see `tracebridge.diagnosis.Diagnostic`."""
    context = tls_context(certificates_of(settings))
    is_reached = True
    for check in reach(settings.url, context, timeout_s, authority="certificate"):
        is_reached = is_reached and check.status != "fail"
        yield check
    if is_reached:
        yield from _endpoint(settings, timeout_s)
    else:
        yield Check(name="endpoint", status="skip", found=_NOT_LOOKED_AT)
    yield Check(name="server", status="skip", found="OTLP tells no name and no version of a server")
    timeout = min(settings.timeout_s, timeout_s)
    if settings.protocol == "http/protobuf" and is_reached:
        with client_for(settings.url, verify=context, timeout=timeout) as client:
            # nobody answers a GET with more than an error here, and any answer tells the time
            yield clock_check(ask(client, settings.url, Redactor((), settings.url)))
    if settings.reader is None:
        words = "there is no `reader:`, so what is sent cannot be read back and validated"
        yield Check(
            name="reader", status="warn", found=words, remedy="add `reader:` where Jaeger or Tempo keeps the spans"
        )
        return
    with client_for(
        settings.reader.url,
        verify=context,
        timeout=min(settings.reader.timeout, timeout_s),
        headers=header_fields({name: value.reveal() for name, value in settings.reader.headers.items()}),
    ) as client:
        for check in reach(settings.reader.url, context, timeout_s, authority="certificate", prefix=_READER):
            yield check
            if check.status == "fail":
                yield Check(name="reader", status="skip", found=_NOT_LOOKED_AT)
                return
        yield from _reader(settings.reader, settings.service, client)


def _endpoint(settings: OtelSettings, timeout_s: float) -> Iterator[Check]:
    """Send a request without a span: it is stored nowhere, and answered as any other."""
    with closing(OtelSink.open(msgspec.structs.replace(settings, timeout=min(settings.timeout_s, timeout_s)))) as sink:
        receipt = sink.deliver(sink.join([]))
    if receipt.outcome is Outcome.ACCEPTED:
        yield Check(name="endpoint", status="ok", found=f"takes OTLP over {settings.protocol}")
        yield Check(name="credentials", status="ok", found="none are asked for, or they are taken")
        return
    if receipt.outcome is Outcome.UNAUTHORIZED:
        yield Check(name="endpoint", status="ok", found=f"answers OTLP over {settings.protocol}")
        yield Check(
            name="credentials",
            status="fail",
            found=receipt.message,
            remedy="check `headers`, which carry the credentials",
        )
        return
    yield Check(name="endpoint", status="fail", found=receipt.message, remedy=_remedy(receipt, settings))


def _remedy(receipt: Receipt, settings: OtelSettings) -> str:
    if receipt.outcome is Outcome.UNKNOWN:
        return "check that this is the port of OTLP, of this protocol: as a rule 4318 for HTTP and 4317 for gRPC"
    if settings.protocol == "grpc":
        return "check the port: as a rule 4317 is gRPC's; for OTLP over HTTP set `protocol: http/protobuf`"
    return "check the endpoint's path and port: as a rule 4318 is that of OTLP over HTTP, and the path is /v1/traces"


def _reader(settings: ReaderSettings, service: str, client: httpx.Client) -> Iterator[Check]:
    redact = Redactor([value.reveal() for value in settings.headers.values()], settings.url)
    path = "/api/v3/services" if settings.type == "jaeger" else "/api/echo"
    exchange = ask(client, settings.url.rstrip("/") + path, redact)
    yield _reader_check(exchange, settings, service, redact)
    yield clock_check(exchange, f"{_READER}clock")


def _reader_check(exchange: Exchange, settings: ReaderSettings, service: str, redact: Redactor) -> Check:
    answer = exchange.answer
    if answer is None:
        found, remedy = silence(exchange, settings.url, settings.timeout)
        return Check(name="reader", status="fail", found=found, remedy=remedy)
    if answer.status in (401, 403):
        words = f"the credentials are refused: {said(answer, redact)}"
        return Check(name="reader", status="fail", found=words, remedy="check `reader.headers`")
    found, remedy = _jaeger(answer, service, redact) if settings.type == "jaeger" else _tempo(answer, redact)
    return Check(name="reader", status="fail" if remedy else "ok", found=found, remedy=remedy)


def _jaeger(answer: Answer, service: str, redact: Redactor) -> tuple[str, str]:
    """What is found, and what to do if it is not Jaeger."""
    services = _services_in(answer) if answer.status == httpx.codes.OK else None
    if services is None:
        found = f"it does not answer as Jaeger's query API does: {said(answer, redact)}"
        return found, "check `reader.url`: Jaeger 2's query service, as a rule on port 16686, with its base path"
    is_known = "has" if service in services else "does not have yet"
    return f"Jaeger's query API; it {is_known} the service {service!r}, which the spans stand under", ""


def _tempo(answer: Answer, redact: Redactor) -> tuple[str, str]:
    """What is found, and what to do if it is not Tempo."""
    if answer.status != httpx.codes.OK or answer.body.strip() != b"echo":
        found = f"it does not answer as Tempo's query API does: {said(answer, redact)}"
        return found, "check `reader.url`: Tempo's query frontend, as a rule on port 3200, with its base path"
    return "Tempo's query API", ""


def _services_in(answer: Answer) -> list[Any] | None:
    try:
        value = msgspec.json.decode(answer.body)
    except (msgspec.DecodeError, RecursionError):
        return None
    if not isinstance(value, dict) or not value.keys() <= {"services"}:
        return None
    # of a server that has seen none yet the list may be left out
    services = value.get("services") or []
    return services if isinstance(services, list) else None

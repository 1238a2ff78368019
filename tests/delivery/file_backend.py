"""A small real backend for delivery's tests: a sink and reader over one file of JSON lines, with scripted answers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from tracebridge.config import Settings, SinkSettings
from tracebridge.errors import BackendError, IncompleteAnswerError
from tracebridge.policy import Policy
from tracebridge.sink import Capabilities, Outcome, Query, Receipt
from tracebridge.span import Span


class FileSettings(msgspec.Struct, frozen=True):
    path: Path


class Answers:
    """What the backend answers: each answer once, in order, then it accepts."""

    def __init__(self) -> None:
        self.scripted: list[Receipt | Exception] = []
        self.stores_anyway: list[bool] = []
        self.requests: list[list[str]] = []
        self.poison: set[str] = set()
        self.breaks_on: set[str] = set()
        """Names of spans on which it fails, as if it were down."""
        self.defects: dict[str, object] = {}
        """By the name of a span, what the sink gives for a request that holds it, in the place of a receipt."""
        self.is_down = False
        self.takes_bytes: int | None = None
        """The largest request that it takes."""
        self.randomly: Callable[[], Receipt | Exception | None] = lambda: None
        """What it answers, if not as usual."""
        self.unencodable: set[str] = set()
        self.reader_is_away = False
        self.hides_from_search = False
        """Whether spans show by their trace alone."""
        self.hidden: set[str] = set()
        """Sessions whose spans are stored and do not show yet."""
        self.queries: list[Query] = []
        self.guard = threading.Lock()


class FileBackend:
    """The sink type. Each request is one append of its spans to the file; a span sent twice is there twice."""

    settings = FileSettings
    environment: Mapping[str, Sequence[str]] = {}
    extra = ""

    def __init__(
        self,
        *,
        readable: bool = True,
        max_request_spans: int = 1000,
        max_request_bytes: int = 1 << 20,
        visibility_lag_s: float = 0.0,
        idempotent: bool = False,
        hidden_from_search: str = "",
    ) -> None:
        self.answers = Answers()
        self.answers.hides_from_search = bool(hidden_from_search)
        self._capabilities = Capabilities(
            mapping_version=1,
            max_request_bytes=max_request_bytes,
            max_request_spans=max_request_spans,
            readable=readable,
            visibility_lag_s=visibility_lag_s,
            idempotent=idempotent,
            hidden_from_search=hidden_from_search,
        )

    def capabilities(self, settings: msgspec.Struct) -> Capabilities:
        return self._capabilities

    def endpoint(self, settings: msgspec.Struct) -> str:
        assert isinstance(settings, FileSettings)
        return str(settings.path)

    def open_sink(self, settings: msgspec.Struct) -> FileSink:
        assert isinstance(settings, FileSettings)
        return FileSink(settings.path, self.answers)

    def open_reader(self, settings: msgspec.Struct) -> FileReader:
        assert isinstance(settings, FileSettings)
        return FileReader(settings.path, self.answers)


class FileSink:
    def __init__(self, path: Path, answers: Answers) -> None:
        self._path = path
        self._answers = answers

    def encode(self, span: Span) -> bytes:
        if span.name in self._answers.unencodable:
            raise ValueError(f"cannot say {span.name}")
        return msgspec.json.encode(span)

    def join(self, parts: Sequence[bytes]) -> bytes:
        return b"\n".join(parts) + b"\n"

    def deliver(self, request: bytes) -> Receipt:
        with self._answers.guard:
            spans = [msgspec.json.decode(line, type=Span) for line in request.splitlines()]
            self._answers.requests.append([span.span_id for span in spans])
            if any(span.name in self._answers.poison for span in spans):
                return Receipt(outcome=Outcome.REJECTED, message="poison")
            for span in spans:
                if span.name in self._answers.defects:
                    return self._answers.defects[span.name]  # type: ignore[return-value]
            if self._answers.is_down or any(span.name in self._answers.breaks_on for span in spans):
                return Receipt(outcome=Outcome.UNKNOWN, message="HTTP 500: it broke")
            if self._answers.takes_bytes is not None and len(request) > self._answers.takes_bytes:
                return Receipt(outcome=Outcome.TOO_LARGE, message="HTTP 413")
            answer = self._answers.scripted.pop(0) if self._answers.scripted else self._answers.randomly()
            answer = answer or Receipt(outcome=Outcome.ACCEPTED)
            stores = self._answers.stores_anyway.pop(0) if self._answers.stores_anyway else False
            if stores or (isinstance(answer, Receipt) and answer.outcome is Outcome.ACCEPTED):
                with self._path.open("ab") as file:
                    file.write(request)
            if isinstance(answer, Exception):
                raise answer
            return answer

    def close(self) -> None:
        return


class FileReader:
    def __init__(self, path: Path, answers: Answers | None = None) -> None:
        self._path = path
        self._answers = answers or Answers()

    def read(self, query: Query) -> Iterator[Span]:
        self._answers.queries.append(query)
        if self._answers.reader_is_away:
            raise BackendError("the query service is away")
        if not self._path.exists() or (self._answers.hides_from_search and not query.trace_ids):
            return
        for line in _whole_lines(self._path.read_bytes()):
            span = msgspec.json.decode(line, type=Span)
            if span.session_id in self._answers.hidden:
                continue
            if query.trace_ids and span.trace_id not in query.trace_ids:
                continue
            if query.session_id in (None, span.session_id) and (
                (query.start_ns or 0) <= span.start_ns < (query.end_ns or 2**63)
            ):
                yield span

    def close(self) -> None:
        return


class PartialBackend(FileBackend):
    """Shows one session only in part, and says so; its ids it shows, if `tells_ids`."""

    def __init__(self, session_id: str, *, tells_ids: bool) -> None:
        super().__init__()
        self._session_id = session_id
        self._tells_ids = tells_ids

    def open_reader(self, settings: msgspec.Struct) -> _PartialReader:
        assert isinstance(settings, FileSettings)
        return _PartialReader(settings.path, self._session_id, tells_ids=self._tells_ids)


class _PartialReader(FileReader):
    def __init__(self, path: Path, session_id: str, *, tells_ids: bool) -> None:
        super().__init__(path)
        self._session_id = session_id
        self._tells_ids = tells_ids

    def read(self, query: Query) -> Iterator[Span]:
        for span in super().read(query):
            if span.session_id == self._session_id and not (query.ids_only and self._tells_ids):
                raise IncompleteAnswerError("only a part of it is shown; raise the limit")
            yield span


def _whole_lines(content: bytes) -> list[bytes]:
    """The lines that end: a request of several pages may be read while it is being written."""
    return content[: content.rfind(b"\n") + 1].splitlines()


def stored(path: Path) -> list[Span]:
    return list(FileReader(path).read(Query(start_ns=0)))


def settings_for(trace_dir: Path, backend: FileBackend, path: Path, policy: Policy | None = None) -> Settings:
    sink = SinkSettings(
        name="file",
        type="file",
        enabled=True,
        policy=policy or Policy(),
        settings=FileSettings(path),
        sink_type=backend,
    )
    return Settings(trace_dir=trace_dir, sinks=(sink,))

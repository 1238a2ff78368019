"""`LlmCall` and `ToolCall`: calls recorded as `with` blocks, so that nothing has to be paired afterwards."""

from __future__ import annotations

from decimal import Decimal
from types import TracebackType
from typing import TYPE_CHECKING, Any

from tracebridge.event import LLM_REQUEST, LLM_RESPONSE, TOOL_CALL, TOOL_RESULT
from tracebridge.interruption import is_interruption
from tracebridge.recording.copying import Handle
from tracebridge.recording.failure import failure_of
from tracebridge.recording.place import Place

if TYPE_CHECKING:
    from tracebridge.recording.session import Session


class LlmCall(Handle):
    """One call of a model. It begins with the block, and ends with `finish`, or else with the block.

    An exception that leaves the block before `finish` is recorded as the call's error, and goes on untouched.
    A block that is entered again after it was left, as by a loop that tries again, is another call.
    """

    __slots__ = ("_first_token_ns", "_inner_entries", "_is_finished", "_place", "_request", "_session", "_started_ns")

    def __init__(self, session: Session, request: dict[str, Any]) -> None:
        self._session = session
        self._request = request
        self._place: Place | None = None
        self._started_ns = 0
        self._first_token_ns = 0
        self._is_finished = False
        self._inner_entries = 0

    def first_token(self) -> None:
        """Note that the first token of the answer has arrived. Only the first call counts."""
        if self._place is None or self._first_token_ns:
            return
        try:
            self._first_token_ns = self._place.run.monotonic_ns()
        except Exception as error:
            self._session.report(error)

    def finish(
        self,
        content: Any = None,
        tool_calls: Any = None,
        tokens: Any = None,
        cost: Any = None,
        thinking: Any = None,
        finish_reason: Any = None,
        *,
        model: Any = None,
        response_id: Any = None,
        duration_ms: Any = None,
        **extra: Any,
    ) -> None:
        """Record the answer, at once. Only the first `finish` of a block counts.

        Args:
            content: the text, or the content blocks, of the answer.
            tool_calls: the calls that the model asks for.
            tokens: the usage as the provider gave it.
            cost: in US dollars; a number, which may be a `Decimal`, or an object of numbers.
            thinking: the reasoning that came with the answer.
            finish_reason: why the model stopped.
            model: the model that answered, if it is another than was asked for.
            response_id: the provider's id of the answer.
            duration_ms: how long the call took, if that is known better than by the block.
            **extra: more entries of the answer.
        """
        if finish_reason is not None:
            extra["finish_reason"] = finish_reason
        if response_id is not None:
            extra["response_id"] = response_id
        if model is None:
            model = self._request["model"]
        self._close(llm_response(model, content, tokens, thinking, tool_calls, cost, extra), duration_ms)

    def __enter__(self) -> LlmCall:
        if self._place is not None and self._place.is_open:
            # the call goes on, as a turn does
            self._inner_entries += 1
            return self
        self._is_finished = False
        self._first_token_ns = 0
        self._open()
        if self._place is not None:
            self._place.enter_and_propagate()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exception: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._inner_entries:
            self._inner_entries -= 1
            return
        if self._place is not None:
            self._place.leave(exception)
            if self._place.is_inherited:
                return
        if not self._is_finished:
            data = {"model": self._request["model"], "content": None}
            error = failure_of(exception)
            if error is not None:
                data["error"] = error
            self._close(data, None)

    async def __aenter__(self) -> LlmCall:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, exception: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, exception, trace)

    def _open(self) -> None:
        self._place, self._started_ns = _begin(self._session, LLM_REQUEST, self._request)

    def _close(self, data: dict[str, Any], duration_ms: Any) -> None:
        if self._is_finished:
            return
        self._is_finished = True
        if self._place is None:
            self._open()
        if self._first_token_ns:
            data["time_to_first_token_ms"] = (self._first_token_ns - self._started_ns) / 1e6
        _end(self._session, LLM_RESPONSE, data, self._place, self._started_ns, duration_ms)


class ToolCall(Handle):
    """One call of a tool. A turn that is opened inside the block is a sub-agent that works for this call.

    An exception that leaves the block before `finish` is recorded as the call's error, and goes on untouched.
    A block that ends without either has succeeded, with no result.
    One that is entered again after it was left, as by a loop that tries again, is another call.
    """

    __slots__ = ("_inner_entries", "_is_finished", "_place", "_request", "_session", "_started_ns")

    def __init__(self, session: Session, request: dict[str, Any]) -> None:
        self._session = session
        self._request = request
        self._place: Place | None = None
        self._started_ns = 0
        self._is_finished = False
        self._inner_entries = 0

    def finish(
        self,
        result: Any = None,
        success: bool | None = None,
        error: Any = None,
        *,
        duration_ms: Any = None,
        **extra: Any,
    ) -> None:
        """Record what the tool gave, at once. Only the first `finish` of a block counts.

        Args:
            result: what the tool returned.
            success: whether it did its work; by default, whether there is no error.
            error: what went wrong: a text or an exception.
            duration_ms: how long the call took, if that is known better than by the block.
            **extra: more entries of the result.
        """
        if self._is_finished:
            return
        self._is_finished = True
        if self._place is None:
            self._open()
        request = self._request
        data = tool_result(request["tool_name"], success, result, error, request.get("call_id"), extra)
        _end(self._session, TOOL_RESULT, data, self._place, self._started_ns, duration_ms)

    def __enter__(self) -> ToolCall:
        if self._place is not None and self._place.is_open:
            # the call goes on, as a turn does
            self._inner_entries += 1
            return self
        self._is_finished = False
        self._open()
        if self._place is not None:
            self._place.enter_and_propagate()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exception: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._inner_entries:
            self._inner_entries -= 1
            return
        if self._place is not None:
            self._place.leave(exception)
            if self._place.is_inherited:
                return
        self.finish(error=failure_of(exception))

    async def __aenter__(self) -> ToolCall:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, exception: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, exception, trace)

    def _open(self) -> None:
        self._place, self._started_ns = _begin(self._session, TOOL_CALL, self._request)


def _begin(session: Session, event_type: str, request: dict[str, Any]) -> tuple[Place | None, int]:
    """Record the first event of a call; return the place that the call is, and the monotonic time."""
    run = session.run
    if run is None:
        return None, 0
    try:
        around = session.here(run)
        place = around.inside(run.new_span_id())
        now_ns = run.monotonic_ns()
        run.record(event_type, request, place, place.span_id, place.parent_id, now_ns)
    except Exception as error:
        session.report(error)
        return None, 0
    return place, now_ns


def _end(
    session: Session,
    event_type: str,
    data: dict[str, Any],
    place: Place | None,
    started_ns: int,
    duration_ms: Any,
) -> None:
    """Record the last event of a call."""
    if place is None:
        return
    try:
        run = place.run
        now_ns = run.monotonic_ns()
        took_ms: float | None = (now_ns - started_ns) / 1e6
        if duration_ms is not None:
            took_ms = milliseconds(duration_ms, data, took_ms)
        run.record(event_type, data, place, place.span_id, place.parent_id, now_ns, took_ms)
    except Exception as error:
        session.report(error)


def llm_response(
    model: Any, content: Any, tokens: Any, thinking: Any, tool_calls: Any, cost: Any, extra: dict[str, Any]
) -> dict[str, Any]:
    """Return the data of an `llm.response` event."""
    data = {"model": model, "content": content}
    if tokens is not None:
        data["tokens"] = tokens
    if thinking is not None:
        data["thinking"] = thinking
    if tool_calls is not None:
        data["tool_calls"] = tool_calls
    if cost is not None:
        data["cost"] = _numbers(cost)
    if extra:
        data.update(extra)
    return data


def _numbers(cost: Any) -> Any:
    """A cost with numbers for `Decimal`s, which would be recorded as text, and a text is no amount to any backend."""
    if type(cost) is dict:
        # copied first: another thread may be changing it
        return {key: _number(amount) for key, amount in list(cost.items())}
    return _number(cost)


def _number(amount: Any) -> Any:
    # asked of the type, as a lazy object may raise when it is asked itself
    return float(amount) if issubclass(type(amount), Decimal) and amount.is_finite() else amount


def tool_result(
    tool_name: Any, success: bool | None, result: Any, error: Any, call_id: Any, extra: dict[str, Any]
) -> dict[str, Any]:
    """Return the data of a `tool.result` event."""
    data = {
        "tool_name": tool_name,
        "success": error is None if success is None else success,
        "result": result,
    }
    if error is not None:
        data["error"] = error
    if call_id is not None:
        data["call_id"] = call_id
    if extra:
        data.update(extra)
    return data


def milliseconds(given: Any, data: dict[str, Any], measured: float | None) -> float | None:
    """Return a duration that the agent gave, as a float.

    What is no duration is kept in `data`, and the measured one is returned.
    """
    try:
        duration = float(given)
        if duration - duration == 0:
            return duration
    except Exception as error:
        if is_interruption(error):
            raise
        data["duration_ms"] = given
    return measured

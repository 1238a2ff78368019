"""`Session`: what `trace_session` gives, one run of a session as the agent's code sees it."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Mapping, MutableMapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from tracebridge import jsonvalue
from tracebridge.event import (
    LLM_REQUEST,
    LLM_RESPONSE,
    SESSION_END,
    SESSION_START,
    THINKING,
    TOOL_CALL,
    TOOL_RESULT,
)
from tracebridge.interruption import is_interruption
from tracebridge.recording.call import LlmCall, ToolCall, llm_response, milliseconds, tool_result
from tracebridge.recording.copying import Handle
from tracebridge.recording.failure import failure_of
from tracebridge.recording.pairing import OpenCall
from tracebridge.recording.place import INNERMOST, Place
from tracebridge.recording.run import Run
from tracebridge.tracecontext import NOT_SAMPLED, TRACEPARENT, TRACESTATE, TraceContext

if TYPE_CHECKING:
    from tracebridge.recording.tracer import Tracer


class Session(Handle):
    """One run of a session: what happens in one `with trace_session(...)` block.

    No method raises because of tracing. In a session that is not recorded, because tracing is switched off or
    sampling leaves the session out, every method does nothing.

    What is recorded belongs to the innermost block (turn, tool call, LLM call) of this session in the current
    context: the same thread or asyncio task, or one that was started with a copy of its context, as asyncio
        does.
    Where the context tells no turn, as in a thread that was started without, it belongs to the turn that was
    opened last and is still open.

    A handle that is entered again while it is open goes on with its run, which ends with the block that is left last.
    One that is entered again after that begins another run.
    """

    def __init__(
        self,
        tracer: Tracer,
        session_id: Any,
        metadata: Any,
        attributes: Mapping[str, Any],
        *,
        is_recorded: bool = True,
    ) -> None:
        self._tracer = tracer
        self.session_id = jsonvalue.text(session_id) if _is_given(session_id) else tracer.ids.session_id()
        self.metadata = _object(metadata)
        """May be changed while the session lasts; a change is recorded at its end."""
        self.outcome: Any = None
        """What came of the session; recorded at its end. It is None again when the handle begins another run."""
        self._attributes = attributes
        self._entries: list[object] = []
        """One for each `with` block that is open on this handle."""
        self._first_entry: object = None
        self.run: Run | None = None
        """What writes the events; None in a session that is not recorded."""
        if is_recorded:
            self._open_run()

    def _open_run(self) -> None:
        run = self._tracer.open_run(self.session_id)
        if run is not None:
            try:
                self._reset(run)
            except Exception as error:
                self.report(error)
                run = None
        self.run = run

    def _reset(self, run: Run) -> None:
        run.handle = weakref.ref(self)
        self._place = Place(
            run,
            0,
            self._tracer.clock(),
            run.new_trace_id(),
            run.new_span_id(),
            None,
        )
        self._turn_numbers = itertools.count(1)
        self._open_turns: list[Place] = []
        self._started_ns = run.monotonic_ns()
        self._metadata_at_start = b""
        self._is_over = False

    @property
    def tracer(self) -> Tracer:
        """What records this session."""
        return self._tracer

    @property
    def run_id(self) -> str:
        """The id of this run; empty in a session that is not recorded."""
        return "" if self.run is None else self.run.run_id

    def log_llm_request(self, model: Any = None, messages: Any = None, tools: Any = None, **extra: Any) -> None:
        """Record that a model is asked.

        Args:
            model: its name.
            messages: what it is sent.
            tools: the definitions of the tools that it is offered.
            **extra: more entries, e.g. `model_parameters`, `provider`, `prompt=(name, version)`.
        """
        run = self.run
        if run is None:
            return
        try:
            place = INNERMOST.get()
            if place is None or place.run is not run or not place.turn or place.is_abandoned:
                place = self.here(run)
            now_ns = run.monotonic_ns()
            span_id = run.new_span_id()
            data = {"model": model}
            if messages is not None:
                data["messages"] = messages
            if tools is not None:
                data["tools"] = tools
            if extra:
                if "prompt" in extra:
                    extra["prompt"] = _prompt_reference(extra["prompt"])
                data.update(extra)
            run.calls.add(
                OpenCall("llm", model if type(model) is str else _comparable(model), None, place, span_id, now_ns)
            )
            run.record(LLM_REQUEST, data, place, span_id, place.span_id, now_ns)
        except Exception as error:
            self.report(error)

    def log_llm_response(
        self,
        model: Any = None,
        content: Any = None,
        tokens: Any = None,
        duration_ms: Any = None,
        thinking: Any = None,
        tool_calls: Any = None,
        cost: Any = None,
        **extra: Any,
    ) -> None:
        """Record what a model answered; `OpenCalls` tells to which request that was logged before.

        Args:
            model: the model that answered; by default, the one that was asked.
            content: the text, or the content blocks, of the answer.
            tokens: the usage as the provider gave it.
            duration_ms: how long the call took; by default, the time since the request was logged.
            thinking: the reasoning that came with the answer.
            tool_calls: the calls that the model asks for.
            cost: in US dollars; a number, which may be a `Decimal`, or an object of numbers.
            **extra: more entries, e.g. `finish_reason`, `response_id`, `time_to_first_token_ms`, `error`.
        """
        run = self.run
        if run is None:
            return
        try:
            place = INNERMOST.get()
            if place is None or place.run is not run or not place.turn or place.is_abandoned:
                place = self.here(run)
            now_ns = run.monotonic_ns()
            took_ms: float | None = None
            call = run.calls.take("llm", model if type(model) is str else _comparable(model), None, place)
            if call is None:
                span_id = run.new_span_id()
            else:
                span_id = call.span_id
                place = call.place
                took_ms = (now_ns - call.started_ns) / 1e6
                if model is None:
                    model = call.name
            data = llm_response(model, content, tokens, thinking, tool_calls, cost, extra)
            if duration_ms is not None:
                took_ms = milliseconds(duration_ms, data, took_ms)
            run.record(LLM_RESPONSE, data, place, span_id, place.span_id, now_ns, took_ms)
        except Exception as error:
            self.report(error)

    def log_tool_call(self, tool_name: Any, args: Any = None, call_id: Any = None, **extra: Any) -> None:
        """Record that a tool is called.

        Args:
            tool_name: its name.
            args: what it is called with.
            call_id: the model's id for the call; it pairs the result surely where one tool is called in
                parallel.
            **extra: more entries.
        """
        run = self.run
        if run is None:
            return
        try:
            place = INNERMOST.get()
            if place is None or place.run is not run or not place.turn or place.is_abandoned:
                place = self.here(run)
            now_ns = run.monotonic_ns()
            span_id = run.new_span_id()
            data = {"tool_name": tool_name, "args": args}
            if call_id is not None:
                data["call_id"] = call_id
            if extra:
                data.update(extra)
            run.calls.add(OpenCall("tool", _comparable(tool_name), _comparable(call_id), place, span_id, now_ns))
            run.record(TOOL_CALL, data, place, span_id, place.span_id, now_ns)
        except Exception as error:
            self.report(error)

    def log_tool_result(
        self,
        tool_name: Any,
        success: bool | None = None,
        result: Any = None,
        error: Any = None,
        duration_ms: Any = None,
        call_id: Any = None,
        **extra: Any,
    ) -> None:
        """Record what a tool gave; `OpenCalls` tells for which call that was logged before.

        Args:
            tool_name: its name.
            success: whether it did its work; by default, whether there is no error.
            result: what it returned.
            error: what went wrong: a text or an exception.
            duration_ms: how long it took; by default, the time since the call was logged.
            call_id: the model's id for the call.
            **extra: more entries.
        """
        run = self.run
        if run is None:
            return
        try:
            place = INNERMOST.get()
            if place is None or place.run is not run or not place.turn or place.is_abandoned:
                place = self.here(run)
            now_ns = run.monotonic_ns()
            took_ms: float | None = None
            call = run.calls.take("tool", _comparable(tool_name), _comparable(call_id), place)
            if call is None:
                span_id = run.new_span_id()
            else:
                span_id = call.span_id
                place = call.place
                took_ms = (now_ns - call.started_ns) / 1e6
            data = tool_result(tool_name, success, result, error, call_id, extra)
            if duration_ms is not None:
                took_ms = milliseconds(duration_ms, data, took_ms)
            run.record(TOOL_RESULT, data, place, span_id, place.span_id, now_ns, took_ms)
        except Exception as trouble:
            self.report(trouble)

    def log_thinking(self, content: Any, stage: Any = None, tokens: Any = None, **extra: Any) -> None:
        """Record a step of reasoning.

        Args:
            content: the reasoning.
            stage: what it is for, e.g. `planning`.
            tokens: how many tokens it took.
            **extra: more entries.
        """
        run = self.run
        if run is None:
            return
        try:
            place = self.here(run)
            data = {"content": content}
            if stage is not None:
                data["stage"] = stage
            if tokens is not None:
                data["tokens"] = tokens
            run.record(THINKING, data | extra, place, run.new_span_id(), place.span_id, run.monotonic_ns())
        except Exception as error:
            self.report(error)

    def llm_call(
        self,
        model: Any = None,
        messages: Any = None,
        *,
        model_parameters: Any = None,
        tools: Any = None,
        prompt: Any = None,
        provider: Any = None,
        **extra: Any,
    ) -> LlmCall:
        """Return a block that records one call of a model.

        Args:
            model: its name.
            messages: what it is sent.
            model_parameters: temperature and the like.
            tools: the definitions of the tools that it is offered.
            prompt: name and version of the managed prompt that the messages were made from.
            provider: who runs the model, e.g. `openai`.
            **extra: more entries of the request.
        """
        request = {"model": model}
        if messages is not None:
            request["messages"] = messages
        if tools is not None:
            request["tools"] = tools
        if model_parameters is not None:
            request["model_parameters"] = model_parameters
        if prompt is not None:
            request["prompt"] = _prompt_reference(prompt)
        if provider is not None:
            request["provider"] = provider
        if extra:
            request.update(extra)
        return LlmCall(self, request)

    def tool_call(self, name: Any, args: Any = None, call_id: Any = None, **extra: Any) -> ToolCall:
        """Return a block that records one call of a tool.

        Args:
            name: the tool's name.
            args: what it is called with.
            call_id: the model's id for the call.
            **extra: more entries of the call.
        """
        request = {"tool_name": name, "args": args}
        if call_id is not None:
            request["call_id"] = call_id
        if extra:
            request.update(extra)
        return ToolCall(self, request)

    def inject(self, headers: MutableMapping[str, str]) -> None:
        """Write the headers `traceparent` and `tracestate` by which another service continues the trace.

        Its spans become children of the innermost `with` block that is open here: a call, a turn, or the session. Of
        a tool call that was logged with `log_tool_call` they do if it is the only one that is open here.

        Args:
            headers: of the request that is sent; entries of the same names are replaced.
        """
        run = self.run
        if run is None:
            return
        try:
            context = _innermost_span(run, self.here(run))
            headers[TRACEPARENT] = context.traceparent
            if context.tracestate:
                headers[TRACESTATE] = context.tracestate
        except Exception as error:
            self.report(error)

    def __enter__(self) -> Session:
        entry = object()
        self._entries.append(entry)
        if self._entries[0] is entry:
            self._first_entry = entry
            try:
                self._begin_unharmed()
            except BaseException as error:
                # an interruption, by Ctrl-C or the like: nobody leaves a block that was not entered
                self.__exit__(type(error), error, None)
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exception: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            # taken from the end, so that of two threads one alone gets the first, and ends the run
            is_last = bool(self._entries) and self._entries.pop() is self._first_entry
            if is_last and self.run is not None:
                self._end(self.run, exception)
        except Exception as error:
            self.report(error)

    async def __aenter__(self) -> Session:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, exception: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, exception, trace)

    def here(self, run: Run) -> Place:
        """Return the place that what happens now belongs to."""
        place = INNERMOST.get()
        while place is not None and (place.run is not run or place.is_abandoned):
            place = place.enclosing
        if place is not None and place.turn:
            return place
        if self._open_turns:
            return self._open_turns[-1]
        return place or self._place

    def open_turn(self, run: Run, remote: TraceContext | None) -> tuple[Place, TraceContext | None]:
        """Return the place of a new turn, and the span from outside of this run that it continues, if any.

        `remote` is the one that was named; it comes before what is open here.
        """
        around = self._around_turn(run) if remote is None else None
        if around is None and remote is None and run.propagation is not None:
            remote = run.propagation.active()
        if around is None and remote is None and self._tracer.one_trace_per_session:
            around = self._place.context(self._place.span_id)
        parent = remote or around
        place = Place(
            run,
            next(self._turn_numbers),
            self._tracer.clock(),
            run.new_trace_id() if parent is None else parent.trace_id,
            run.new_span_id(),
            None if parent is None else parent.span_id,
            None if parent is None or parent.is_sampled else NOT_SAMPLED,
            "" if parent is None else parent.tracestate,
            parent is not None and parent.is_random,
        )
        self._open_turns.append(place)
        run.calls.forget_before(run.monotonic_ns() - self._tracer.orphan_after_ns)
        return place, remote

    def close_turn(self, place: Place) -> None:
        """Take a turn out of the open ones."""
        if place in self._open_turns:
            self._open_turns.remove(place)

    def report(self, error: Exception) -> None:
        """Count an error of tracebridge itself, which must not reach the agent."""
        self._tracer.report(error)

    def _around_turn(self, run: Run) -> TraceContext | None:
        """Return the span of this run that a new turn is a part of; None if it is of none."""
        place = INNERMOST.get()
        # a task may outlive the turn that it was started in; then it is no part of that
        while place is not None and not (place.run is run and place.turn and place.is_open):
            place = place.enclosing
        return None if place is None else _innermost_span(run, place)

    def _begin_unharmed(self) -> None:
        try:
            self._begin()
        except Exception as error:
            self.report(error)

    def _begin(self) -> None:
        if self.run is not None and (self._is_over or self._place.is_inherited):
            # the same handle entered again, or in another process, is another run, of which nothing has come yet
            self.outcome = None
            self._open_run()
        run = self.run
        if run is None:
            return
        self._place.enter()
        self._started_ns = now_ns = run.monotonic_ns()
        data = {
            "metadata": self.metadata,
            **self._attributes,
            "orphan_after_s": self._tracer.settings.orphan_after,
        }
        self._metadata_at_start = jsonvalue.encode(self.metadata)
        run.record(SESSION_START, data, self._place, self._place.span_id, None, now_ns)
        self._write_metadata(run, {**self._attributes})

    def _end(self, run: Run, exception: BaseException | None) -> None:
        self._place.leave(exception)
        self._is_over = True
        if self._place.is_inherited:
            return
        error = failure_of(exception)
        if error is not None:
            self.outcome = "error"
        data = {"outcome": self.outcome, "total_turns": next(self._turn_numbers) - 1}
        if error is not None:
            data["error"] = error
        if jsonvalue.encode(self.metadata) != self._metadata_at_start:
            data["metadata"] = self.metadata
        now_ns = run.monotonic_ns()
        took_ms = (now_ns - self._started_ns) / 1e6
        run.record(SESSION_END, data, self._place, self._place.span_id, None, now_ns, took_ms)
        self._write_metadata(run, {**self._attributes, "outcome": self.outcome})
        self._tracer.close_run(run)

    def _write_metadata(self, run: Run, known: dict[str, Any]) -> None:
        run.write_metadata(self._place.clock.timestamp(self._started_ns), self.metadata, known)


def _innermost_span(run: Run, place: Place) -> TraceContext:
    """The span that what is begun at a place belongs to: that of the place, or of the only tool call open in it."""
    tool = run.calls.only_tool_here()
    if tool is not None and tool.place is place:
        return place.context(tool.span_id)
    return place.context(place.span_id)


def _is_given(session_id: Any) -> bool:
    return session_id is not None and not (type(session_id) is str and session_id == "")


def _object(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    try:
        if isinstance(value, Mapping):
            return dict(value)
    except Exception as error:
        if is_interruption(error):
            raise
    return {"metadata": value}


def _prompt_reference(prompt: Any) -> Any:
    # asked of the type, as a lazy object may raise when it is asked itself
    try:
        if issubclass(type(prompt), (tuple, list)) and len(prompt) == 2:
            return {"name": prompt[0], "version": prompt[1]}
    except Exception as error:
        if is_interruption(error):
            raise
    return prompt


def _comparable(value: Any) -> Any:
    # what the agent hands over may be of a type whose comparison does anything
    return value if value is None or type(value) is str else jsonvalue.text(value)

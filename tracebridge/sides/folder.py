"""A folder of sessions as a side: journals of tracebridge or of the original format, read as spans."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tracebridge import policy as policies
from tracebridge.delivery.watch import INCOMPLETE_GRACE_NS
from tracebridge.errors import ConfigurationError
from tracebridge.journal import layout
from tracebridge.journal.survey import parts_apart
from tracebridge.policy import Policy
from tracebridge.session_stream import SessionStream
from tracebridge.sides.side import Notes, Side
from tracebridge.span import Span


def folder_side(name: str, folder: Path, policy: Policy) -> Side:
    """The sessions of `folder` that `policy` keeps, and of each what it leaves.

    Raises:
        ConfigurationError: there is no such folder, or no session in it.
    """
    if not folder.is_dir():
        raise ConfigurationError(f"{name}: there is no folder {folder}; name one that holds `session-<id>` folders")
    if next(iter(layout.session_folders(folder)), None) is None:
        raise ConfigurationError(f"{name}: no `session-<id>` folder lies in {folder}; name the folder that holds them")
    return Side(name=name, read=partial(_spans, folder, policy), is_ours=True)


def _spans(folder: Path, policy: Policy, notes: Notes) -> Iterator[Span]:
    for session, part in parts_apart(folder):
        session_id = layout.session_id_of(session)
        if policies.keeps_session(policy, session_id):
            notes.could_not_read(f"{part.path}: {part.reason}", session_id)
    for session in layout.session_folders(folder):
        session_id = layout.session_id_of(session)
        if not policies.keeps_session(policy, session_id):
            continue
        try:
            yield from _spans_of(session, session_id, policy, notes)
        except OSError as error:
            notes.leave_out(session_id)
            notes.could_not_read(f"its journal cannot be read: {error}", session_id)


def _spans_of(session: Path, session_id: str, policy: Policy, notes: Notes) -> Iterator[Span]:
    stream = SessionStream(
        layout.events_file(session),
        partial(policies.apply, policy),
        untouched_size=policies.untouched_size(policy),
    )
    # asked before the file is read: what is written meanwhile must not be given up unseen
    began_ns = time.time_ns()
    for step in stream.steps():
        if step.problem is not None:
            notes.could_not_read(f"{step.problem.file}, byte {step.problem.offset}: {step.problem.text}", session_id)
        yield from _kept(step.spans, policy)
    yield from _kept(stream.expire(began_ns - INCOMPLETE_GRACE_NS), policy)
    if not stream.is_idle:
        notes.leave_out(session_id)
        notes.could_not_read("still open: its last run has not ended", session_id)


def _kept(spans: list[Span], policy: Policy) -> Iterator[Span]:
    return (span for span in spans if policies.keeps_span(policy, span))

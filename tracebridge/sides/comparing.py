"""Compares two sides of any size: both become files of rows, and the engine says what the rows come to."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, cast

import msgspec

from tracebridge.errors import ConfigurationError
from tracebridge.sides.digest import FIELDS, default_value
from tracebridge.sides.engine import EDGES, EQUAL, Engine, Group, Place, Settings, missing
from tracebridge.sides.side import Notes, Side
from tracebridge.sink import Loss
from tracebridge.span import Span
from tracebridge.validation import Difference, Finding, Uncompared, compare
from tracebridge.validation.comparison import COPIED, SEVERAL_FILES, Comparison, FindingKind, without_copies

if TYPE_CHECKING:
    from tracebridge.sides.rows import RowFile

MOST_SHOWN: Final = 100
"""How many findings of each kind are shown with their spans, unless somebody asks for another number."""

_KINDS: Final[dict[str, FindingKind]] = {
    "missing": "missing",
    "extra": "extra",
    "foreign": "foreign",
    "foreign on the left": "foreign",
    "duplicate": "duplicate",
    "different": "different",
}
"""By what the engine calls them, the kinds of finding."""

_OF_LEFT: Final = ("equal", "moved", "different", "missing", "foreign on the left")
_OF_RIGHT: Final = ("equal", "moved", "different", "duplicate", "extra", "foreign")

_OF_A_JOURNAL: Final = {
    COPIED: "The journal holds a copy of a span that the other side shows less often.",
    SEVERAL_FILES: "The journal holds one after the other what was sent from several files.",
}
"""In words, what is equal all the same where one side is a journal, and the other was sent from it."""

Progress = Callable[[str, int], None]
"""Is told which side is being read, and how many of its spans are."""


class SidesVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """What comparing two sides came to."""

    left: str
    right: str
    engine: str
    expected: int
    """Spans of the left side that were compared, every copy counted."""
    observed: int
    """Spans of the right side that were compared, every copy counted."""
    equal: int
    """Spans that both sides have, equal up to declared losses."""
    spans: dict[str, int]
    """By kind, how many spans the left side gave."""
    losses: dict[str, int]
    """By the name of a declared loss, how many spans are equal only up to it."""
    declared: dict[str, str]
    """By its name, every loss that was allowed for, in words."""
    counts: dict[str, int]
    """By kind of finding, how many there are."""
    fields: dict[str, int]
    """By field, how many spans differ in it."""
    findings: tuple[Finding, ...]
    """Of each kind the first ones by their ids, as many as were asked for."""
    uncompared: tuple[Uncompared, ...]

    @property
    def exit_code(self) -> Literal[0, 1, 2]:
        """0: all was compared and is equal. 1: findings. 2: something, or everything, could not be compared."""
        if any(count for kind, count in self.counts.items() if kind != "foreign"):
            return 1
        return 2 if self.uncompared or not self.equal else 0


def compare_sides(
    left: Side,
    right: Side,
    settings: Settings | None = None,
    *,
    shown: int | None = MOST_SHOWN,
    progress: Progress | None = None,
) -> SidesVerdict:
    """Compare two sides; `shown` findings of each kind are told with their spans, all if None.

    Memory is bounded: what is large lies in a temporary folder, which holds the spans of both sides for as long as the
    comparison takes.

    Raises:
        MissingExtraError: the engine's packages, or those of a side, are not installed.
        BackendError: a side cannot be read to its end.
        ConfigurationError: a side is not there, or the engine does not start, or lacks memory or room on the disk.
    """
    settings = settings or Settings()
    try:
        from tracebridge.sides.rows import RowFile
    except ImportError as error:
        raise missing(error) from error
    try:
        with tempfile.TemporaryDirectory(prefix="tracebridge-sides-") as folder:
            return _compared(left, right, settings, Path(folder), RowFile, shown, progress)
    except OSError as error:
        # what a side reads of files is its own to tell
        raise ConfigurationError(
            f"{tempfile.gettempdir()}: the two sides cannot be written there ({error}); it takes room for both: make "
            "some, or name another folder in $TMPDIR"
        ) from error


def _compared(
    left: Side,
    right: Side,
    settings: Settings,
    folder: Path,
    row_file: type[RowFile],
    shown: int | None,
    progress: Progress | None,
) -> SidesVerdict:
    losses = tuple({loss.name: loss for loss in (*left.losses, *right.losses)}.values())
    engine = Engine(settings, folder)
    try:
        files, notes, journal = [], Notes(), _journal_of(left, right)
        for place, side in (("left", left), ("right", right)):
            rows = row_file(folder / f"{place}.parquet", losses, is_ours=side.is_ours, with_places=journal is not None)
            for spans in rows.write(side.read(notes)):
                if progress is not None:
                    progress(side.name, spans)
            files.append(rows)
        for with_moves in (False, True):
            tally = _Tally(files[0], files[1], losses, shown, journal)
            for group in _by_ids(
                engine.compare(files[0], files[1], len(losses), notes.left_out, shown, journal, with_moves=with_moves)
            ):
                tally.add(group)
            if not tally.may_have_moved:
                break
    finally:
        engine.close()
    return SidesVerdict(
        left=left.name,
        right=right.name,
        engine=settings.engine,
        spans=dict(sorted(files[0].kinds.items())),
        declared={loss.name: loss.words for loss in losses} | (_OF_A_JOURNAL if journal else {}),
        uncompared=notes.uncompared(),
        findings=tally.findings(),
        **tally.totals(),
    )


def _journal_of(left: Side, right: Side) -> Place | None:
    """Which side is a journal that the other may have been sent from; two journals are files, equal or not."""
    if left.is_ours == right.is_ours:
        return None
    return "left" if left.is_ours else "right"


def _by_ids(groups: Iterable[Group]) -> Iterator[list[Group]]:
    """Groups as they come, each alone, but for crowded ones: all of an id together."""
    for (kind, _, _), together in groupby(groups, key=lambda group: (group.kind, group.trace_id, group.span_id)):
        if kind == "crowded":
            yield list(together)
        else:
            yield from ([group] for group in together)


class _Tally:
    """Adds up groups."""

    def __init__(
        self, left: RowFile, right: RowFile, losses: Sequence[Loss], shown: int | None, journal: Place | None
    ) -> None:
        self._left, self._right, self._losses, self._shown, self._journal = left, right, losses, shown, journal
        self.may_have_moved = False
        """Whether spans are different, in nothing but what tells where in the journal they stand."""
        self._expected = self._observed = self._equal = 0
        self._met: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._fields: Counter[str] = Counter()
        self._to_show: list[Group] = []
        self._crowded: list[Finding] = []

    def add(self, together: list[Group]) -> None:
        """Count one group, or all crowded ones of an id."""
        if together[0].kind == "crowded":
            self._add_crowded(together)
        else:
            self._add_counted(together[0])

    def totals(self) -> dict[str, Any]:
        """The counts, by the names that `SidesVerdict` has for them."""
        return {
            "expected": self._expected,
            "observed": self._observed,
            "equal": self._equal,
            "losses": dict(sorted((+self._met).items())),
            "counts": dict(sorted(self._counts.items())),
            "fields": dict(sorted(self._fields.items())),
        }

    def findings(self) -> tuple[Finding, ...]:
        """What is shown, by ids."""
        left = self._left.look_up(group.left for group in self._to_show if group.left is not None)
        right = self._right.look_up(group.right for group in self._to_show if group.right is not None)
        found = [
            _finding(
                group,
                None if group.left is None else left[group.left],
                None if group.right is None else right[group.right],
            )
            for group in self._to_show
        ]
        return tuple(sorted([*found, *self._crowded], key=lambda finding: (finding.trace_id, finding.span_id)))

    def _add_counted(self, group: Group) -> None:
        if group.kind in EQUAL:
            self._equal += group.count
        else:
            self._counts[_KINDS[group.kind]] += group.count
        is_copied = group.kind == "copied"
        self._expected += group.count * (group.kind in _OF_LEFT or (is_copied and self._journal == "left"))
        self._observed += group.count * (group.kind in _OF_RIGHT or (is_copied and self._journal == "right"))
        self._met[COPIED] += group.count * is_copied
        self._met[SEVERAL_FILES] += group.count * (group.kind == "moved")
        if self._journal and group.kind == "different" and not group.fields & ~EDGES:
            self.may_have_moved = True
        for number, loss in enumerate(self._losses):
            if group.met >> number & 1:
                self._met[loss.name] += group.count
        for number, name in enumerate(FIELDS):
            if group.fields >> number & 1:
                self._fields[name] += group.count
        if group.left is not None or group.right is not None:
            self._to_show.append(group)

    def _add_crowded(self, pairs: list[Group]) -> None:
        """Both sides have an id more than once, which is rare: their spans are compared here."""
        left = self._spans(self._left, {pair.left for pair in pairs})
        right = self._spans(self._right, {pair.right for pair in pairs})
        comparison = compare(left, right, self._losses)
        if self._journal == "left":
            comparison = without_copies(comparison, left)
        elif self._journal == "right":
            comparison = self._without_copies_of_right(comparison, left, right)
        self._expected += comparison.expected
        self._observed += comparison.observed
        self._equal += comparison.equal
        self._met.update(comparison.losses)
        for finding in comparison.findings:
            self._counts[finding.kind] += 1
            self._fields.update(difference.field for difference in finding.differences)
            if self._shown is None or self._counts[finding.kind] <= self._shown:
                self._crowded.append(finding)

    def _without_copies_of_right(self, comparison: Comparison, left: list[Span], right: list[Span]) -> Comparison:
        copies = without_copies(compare(right, left, self._losses), right).losses.get(COPIED, 0)
        if not copies:
            return comparison
        return msgspec.structs.replace(
            comparison,
            findings=tuple(finding for finding in comparison.findings if finding.kind != "duplicate"),
            equal=comparison.equal + copies,
            losses={**comparison.losses, COPIED: copies},
        )

    def _spans(self, rows: RowFile, numbers: set[int | None]) -> list[Span]:
        found = rows.look_up(number for number in numbers if number is not None)
        return [msgspec.convert(found[number], Span) for number in sorted(found)]


def _finding(group: Group, left: dict[str, Any] | None, right: dict[str, Any] | None) -> Finding:
    span = cast("dict[str, Any]", left if group.kind in _OF_LEFT else right)
    differing = [number for number in range(len(FIELDS)) if group.fields >> number & 1]
    return Finding(
        kind=_KINDS[group.kind],
        session_id=_value(span, "session_id"),
        trace_id=span["trace_id"],
        span_id=span["span_id"],
        span_kind=_value(span, "kind"),
        name=_value(span, "name"),
        differences=tuple(
            Difference(
                field=FIELDS[number], expected=_value(left, FIELDS[number]), observed=_value(right, FIELDS[number])
            )
            for number in differing
        ),
    )


def _value(span: dict[str, Any] | None, name: str) -> Any:
    return span[name] if span and name in span else default_value(FIELDS.index(name))

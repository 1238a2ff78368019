"""One Ibis expression that compares the rows of two sides, on embedded DuckDB or on Spark.

It never sees a span, only digests, so that it says the same on any engine. This is the only module that speaks to
Ibis, which carries no types.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from tracebridge.errors import ConfigurationError, MissingExtraError
from tracebridge.sides.digest import FIELDS, Column, column_name

if TYPE_CHECKING:
    from tracebridge.sides.rows import RowFile

EngineName = Literal["duckdb", "spark"]
Place = Literal["left", "right"]

DEFAULT_MEMORY_MB: Final = 1_024
_IDS: Final = ("trace_id", "span_id")
EQUAL: Final = ("equal", "copied", "moved")
"""The kinds of pairs that are counted and never shown."""

EDGES: Final = sum(1 << FIELDS.index(name) for name in ("opened", "closed"))
"""The bits of the fields that tell where in a journal a span stands."""


_OF_JOURNAL: Final = ("session_id", "run_id", "opened_at", "opened_as", "closed_at", "closed_as", "alike")
"""The columns that say where in a journal a span stands, and what it is elsewhere."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """On what to compare."""

    engine: EngineName = "duckdb"
    master: str = "local[*]"
    """Spark's master; DuckDB has none."""
    memory_mb: int = DEFAULT_MEMORY_MB
    """What DuckDB may use before it goes on to the disk, and the heap of a local Spark."""


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Pairs of rows with the same outcome; a single one where it is shown."""

    kind: str
    """A kind of finding, `foreign on the left`, `equal`, `copied`: a copy that the journal alone has, `moved`: equal
    but for the place in the journal, or `crowded`: a pair of an id that both sides have more than once."""
    count: int
    met: int
    """Bit n is set if the loss of number n leaves fewer fields different."""
    fields: int
    """Bit n is set if the field of number n differs after all losses."""
    left: int | None
    """The number of the left row of a pair that is shown."""
    right: int | None
    trace_id: str | None
    span_id: str | None


class Engine:
    """Runs the expression."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        """Start the engine, which keeps what does not fit into memory in `folder`.

        Raises:
            MissingExtraError: its packages are not installed.
            ConfigurationError: it does not start.
        """
        self._connection = _spark(settings, folder) if settings.engine == "spark" else _duckdb(settings, folder)
        self._settings = settings

    def close(self) -> None:
        """Stop the engine."""
        self._connection.disconnect()

    def compare(
        self,
        left: RowFile,
        right: RowFile,
        losses: int,
        without: Collection[str],
        shown: int | None,
        journal: Place | None = None,
        *,
        with_moves: bool = False,
    ) -> Iterator[Group]:
        """Compare two files of rows that were written with the same losses, less the sessions of `without`.

        `journal` is the side whose journal the other one was sent from. With `with_moves`, which takes as long again,
        runs are told that stood in other files when they were sent.

        Groups come ordered by kind and, where they are shown, by ids. Of each kind of finding `shown` pairs are shown,
        all if None, and of `crowded` always all.

        Raises:
            ConfigurationError: the engine gave up, for lack of memory, say.
        """
        try:
            tables = [self._connection.read_parquet(str(rows.path)) for rows in (left, right)]
            pairs = _levels(_pairs(tables[0], tables[1], without), left.used | right.used, losses)
            kinds = _kinds(pairs, journal)
            expression = _grouped(_with_moves(kinds, journal) if with_moves and journal else kinds, shown)
            for batch in self._connection.to_pyarrow_batches(expression):
                for row in batch.to_pylist():
                    yield Group(**row)
        except Exception as error:  # each engine has errors of its own
            reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            raise ConfigurationError(
                f"{self._settings.engine} gave up comparing ({reason}); give it more memory with "
                f"--memory-mb (now {self._settings.memory_mb}), or more room for what does not fit, in $TMPDIR"
            ) from error


def _pairs(left: Any, right: Any, without: Collection[str]) -> Any:
    """Every row of each side beside every row of the other that has its ids, or beside nothing."""
    if without:
        left, right = (table.filter(~table.session_id.isin(sorted(without))) for table in (left, right))
    left, right = left.drop("raw").rename("l_{name}"), right.drop("raw").rename("r_{name}")
    return left.outer_join(right, [left[f"l_{name}"] == right[f"r_{name}"] for name in _IDS])


def _levels(pairs: Any, used: Collection[Column], losses: int) -> Any:
    """Of each pair, how many fields differ at each level, and which at the last one and what it took to get there."""
    import ibis

    zero = ibis.literal(0, "int64")
    values = {number: (pairs[f"l_{name}"], pairs[f"r_{name}"]) for number, name in _columns(used, 0)}
    differs = {number: (left != right).cast("int64") for number, (left, right) in values.items()}
    counts = [_sum(differs.values(), zero)]
    for level in range(1, losses + 1):
        for number, name in _columns(used, level):
            left, right = values.get(number, (zero, zero))
            values[number] = pairs[f"l_{name}"].coalesce(left), pairs[f"r_{name}"].coalesce(right)
            differs[number] = (values[number][0] != values[number][1]).cast("int64")
        counts.append(_sum(differs.values(), zero))
    fields = _sum((one * (1 << number) for number, one in differs.items()), zero)
    counted = pairs.select(
        *(f"{side}_{name}" for side in "lr" for name in ("number", "marked", *_OF_JOURNAL)),
        **{name: ibis.coalesce(pairs[f"l_{name}"], pairs[f"r_{name}"]) for name in _IDS},
        **{f"n{level}": count for level, count in enumerate(counts)},
        last=fields,
    )
    is_over, met = counted.n0 == 0, zero
    for level in range(1, losses + 1):
        is_met = ~is_over & (counted[f"n{level}"] < counted[f"n{level - 1}"])
        met = met + is_met.cast("int64") * (1 << (level - 1))
        is_over = is_over | (counted[f"n{level}"] == 0)
    left_over = ibis.ifelse(is_over, zero, counted[f"n{losses}"])
    return counted.mutate(met=met, is_equal=is_over, left_over=left_over)


def _kinds(pairs: Any, journal: Place | None) -> Any:
    """What each pair is.

    Of an id that one side has more than once, the pair counts that differs least after the losses; if that is the
    journal, the others are copies where all of them say the same, and the other side does.
    """
    import ibis

    same_ids = ibis.window(group_by=list(_IDS))
    best_first = ibis.window(group_by=list(_IDS), order_by=["left_over", "l_number", "r_number"])
    ranked = pairs.mutate(
        l_many=pairs.l_number.min().over(same_ids) < pairs.l_number.max().over(same_ids),
        r_many=pairs.r_number.min().over(same_ids) < pairs.r_number.max().over(same_ids),
        rank=ibis.row_number().over(best_first),
    )
    is_copied = ibis.literal(value=False)
    if journal is not None:
        alike, is_many = (ranked.l_alike, ranked.l_many) if journal == "left" else (ranked.r_alike, ranked.r_many)
        is_shown = ranked.is_equal.cast("int64").max().over(same_ids) == 1
        is_copied = is_many & is_shown & (alike.min().over(same_ids) == alike.max().over(same_ids))
    kind = ibis.cases(
        (ranked.l_number.isnull(), ibis.ifelse(ranked.r_marked, "extra", "foreign")),
        (ranked.r_number.isnull(), ibis.ifelse(ranked.l_marked, "missing", "foreign on the left")),
        (ranked.l_many & ranked.r_many, "crowded"),
        (ranked["rank"] == 0, ibis.ifelse(ranked.is_equal, "equal", "different")),
        (is_copied, "copied"),
        (ranked.l_many, "missing"),
        else_="duplicate",
    )
    return ranked.mutate(kind=kind)


def _with_moves(pairs: Any, journal: Place) -> Any:
    """The same, where what differs only in its place is `moved` if its run was sent from other files.

    Those stand in the journal one after the other: each begins behind what was seen of the one before, and from there
    on both sides count alike.
    """
    import ibis

    here, there = ("l", "r") if journal == "left" else ("r", "l")
    pairs = pairs.mutate(session_id=pairs[f"{here}_session_id"], run_id=pairs[f"{here}_run_id"])
    alone = pairs.filter(pairs.l_number.notnull() & pairs.r_number.notnull() & ~pairs.l_many & ~pairs.r_many)
    places = [
        alone.select("session_id", "run_id", here=alone[f"{here}_{edge}"], there=alone[f"{there}_{edge}"])
        for edge in ("opened_at", "closed_at")
    ]
    places = ibis.union(*places).drop_null(["here", "there"])
    places = places.mutate(begins=places.here - places.there)
    in_order = ibis.window(group_by=["session_id", "run_id"], order_by=["here", "there"])
    steps = places.mutate(
        begun=places.begins.lag().over(in_order).coalesce(0), before=places.here.lag().over(in_order).coalesce(-1)
    )
    stray = steps.filter((steps.begins != steps.begun) & (steps.begins <= steps.before))
    stray = stray.select(stray_session="session_id", stray_run="run_id").distinct()
    joined = pairs.left_join(stray, [pairs.session_id == stray.stray_session, pairs.run_id == stray.stray_run])
    is_moved = (
        (joined.kind == "different")
        & ~(joined.l_many | joined.r_many)
        & ((joined["last"] & ~EDGES) == 0)
        & (joined.l_opened_as == joined.r_opened_as)
        & (joined.l_closed_as == joined.r_closed_as)
        & joined.stray_run.isnull()
    )
    return joined.mutate(kind=ibis.ifelse(is_moved, "moved", joined.kind))


def _grouped(pairs: Any, shown: int | None) -> Any:
    import ibis

    is_equal = pairs.kind.isin(EQUAL)
    # what is equal is only counted: spread over traces, so that no part of the work has to see all of it
    in_order = ibis.window(
        group_by=[pairs.kind, ibis.ifelse(is_equal, pairs.trace_id, "")],
        order_by=[pairs.trace_id, pairs.span_id, pairs.l_number, pairs.r_number],
    )
    placed = pairs.mutate(place=ibis.row_number().over(in_order))
    is_shown = placed.kind.notin(EQUAL)
    if shown is not None:
        is_shown = is_shown & ((placed.kind == "crowded") | (placed.place < shown))
    told = {"left": placed.l_number, "right": placed.r_number} | {name: placed[name] for name in _IDS}
    groups = placed.select(
        "kind",
        met=ibis.ifelse(placed.kind.isin(("equal", "moved")), placed.met, 0),
        fields=ibis.ifelse(placed.kind == "different", placed["last"], 0),
        **{name: ibis.ifelse(is_shown, value, ibis.null(value.type())) for name, value in told.items()},
    )
    keys = ["kind", "met", "fields", *told]
    return groups.group_by(keys).agg(count=groups.count()).order_by("kind", *_IDS, "left", "right")


def _columns(used: Collection[Column], level: int) -> list[tuple[int, str]]:
    return [(number, column_name((level, number))) for number in range(len(FIELDS)) if (level, number) in used]


def _sum(terms: Any, zero: Any) -> Any:
    total = zero
    for term in terms:
        total = total + term
    return total


def _duckdb(settings: Settings, folder: Path) -> Any:
    try:
        import ibis

        # a limit holds for what is buffered; without an order to keep, less is
        return ibis.duckdb.connect(
            memory_limit=f"{settings.memory_mb}MB", temp_directory=str(folder), preserve_insertion_order=False
        )
    except ImportError as error:
        raise missing(error) from error


def _spark(settings: Settings, folder: Path) -> Any:
    try:
        import ibis
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise missing(error, "spark") from error
    try:
        session = (
            SparkSession.builder.master(settings.master)
            .appName("tracebridge validate")
            .config("spark.ui.enabled", "false")
            .config("spark.driver.memory", f"{settings.memory_mb}m")
            .config("spark.local.dir", str(folder))
            .config("spark.sql.session.timeZone", "UTC")
            .getOrCreate()
        )
    except Exception as error:  # whatever Java says when it is not there or cannot reach the master
        raise ConfigurationError(
            f"Spark does not start on {settings.master!r} ({type(error).__name__}: {error}); "
            "it needs Java 17 or newer on the PATH, and a master that can be reached"
        ) from error
    return ibis.pyspark.connect(session)


def missing(error: ImportError, extra: str = "compare") -> MissingExtraError:
    """The error that says what to install."""
    return MissingExtraError(
        f"comparing two sides needs packages that are not installed ({error}): pip install 'tracebridge[{extra}]'"
    )

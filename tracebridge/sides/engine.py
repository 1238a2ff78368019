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

DEFAULT_MEMORY_MB: Final = 1_024
_IDS: Final = ("trace_id", "span_id")


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
    """A kind of finding, `foreign on the left`, `equal`, or `crowded`: a pair of an id that both sides have more than
    once."""
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
        self, left: RowFile, right: RowFile, losses: int, without: Collection[str], shown: int | None
    ) -> Iterator[Group]:
        """Compare two files of rows that were written with the same losses, less the sessions of `without`.

        Groups come ordered by kind and, where they are shown, by ids. Of each kind of finding `shown` pairs are shown,
        all if None, and of `crowded` always all.

        Raises:
            ConfigurationError: the engine gave up, for lack of memory, say.
        """
        try:
            tables = [self._connection.read_parquet(str(rows.path)) for rows in (left, right)]
            expression = outcome(tables[0], tables[1], left.used | right.used, losses, without, shown)
            for batch in self._connection.to_pyarrow_batches(expression):
                for row in batch.to_pylist():
                    yield Group(**row)
        except Exception as error:  # each engine has errors of its own
            reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            raise ConfigurationError(
                f"{self._settings.engine} gave up comparing ({reason}); give it more memory with "
                f"--memory-mb (now {self._settings.memory_mb}), or more room for what does not fit, in $TMPDIR"
            ) from error


def outcome(
    left: Any, right: Any, used: Collection[Column], losses: int, without: Collection[str], shown: int | None
) -> Any:
    """The expression: its rows are those of `Group`."""
    pairs = _levels(_pairs(left, right, without), used, losses)
    return _grouped(_kinds(pairs), shown)


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
        *("l_number", "r_number", "l_marked", "r_marked"),
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


def _kinds(pairs: Any) -> Any:
    """What each pair is.

    Of an id that one side has more than once, the pair counts that differs least after the losses.
    """
    import ibis

    same_ids = ibis.window(group_by=list(_IDS))
    best_first = ibis.window(group_by=list(_IDS), order_by=["left_over", "l_number", "r_number"])
    ranked = pairs.mutate(
        l_many=pairs.l_number.min().over(same_ids) < pairs.l_number.max().over(same_ids),
        r_many=pairs.r_number.min().over(same_ids) < pairs.r_number.max().over(same_ids),
        rank=ibis.row_number().over(best_first),
    )
    kind = ibis.cases(
        (ranked.l_number.isnull(), ibis.ifelse(ranked.r_marked, "extra", "foreign")),
        (ranked.r_number.isnull(), ibis.ifelse(ranked.l_marked, "missing", "foreign on the left")),
        (ranked.l_many & ranked.r_many, "crowded"),
        (ranked["rank"] == 0, ibis.ifelse(ranked.is_equal, "equal", "different")),
        (ranked.l_many, "missing"),
        else_="duplicate",
    )
    return ranked.mutate(kind=kind)


def _grouped(pairs: Any, shown: int | None) -> Any:
    import ibis

    is_equal = pairs.kind == "equal"
    # what is equal is only counted: spread over traces, so that no part of the work has to see all of it
    in_order = ibis.window(
        group_by=[pairs.kind, ibis.ifelse(is_equal, pairs.trace_id, "")],
        order_by=[pairs.trace_id, pairs.span_id, pairs.l_number, pairs.r_number],
    )
    placed = pairs.mutate(place=ibis.row_number().over(in_order))
    is_shown = placed.kind != "equal"
    if shown is not None:
        is_shown = is_shown & ((placed.kind == "crowded") | (placed.place < shown))
    told = {"left": placed.l_number, "right": placed.r_number} | {name: placed[name] for name in _IDS}
    groups = placed.select(
        "kind",
        met=ibis.ifelse(placed.kind == "equal", placed.met, 0),
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

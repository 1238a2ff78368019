"""Spark says what DuckDB says."""

from __future__ import annotations

import shutil

import msgspec
import pytest

from tests.sides.test_comparing import LOSSES, side
from tests.validation.test_comparison import span
from tracebridge.errors import ConfigurationError
from tracebridge.sides import Settings, compare_sides

pytest.importorskip("ibis", reason="needs the extra `compare`")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    # Spark's client leaves its sockets to the garbage collector, and what it calls of others is their past
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs Java 17 or newer on the PATH"),
]


def test_the_same_sides_get_the_same_verdict_on_both_engines() -> None:
    pytest.importorskip("pyspark", reason="needs the extra `spark`")
    left = [span(number) for number in range(40)]
    right = [
        *(msgspec.structs.replace(one, start_ns=one.start_ns // 1_000_000 * 1_000_000) for one in left[:20]),
        *(msgspec.structs.replace(one, tags=("x",), turn=7) for one in left[20:25]),
        *left[25:30],
        *left[28:30],
        *(span(number, fingerprint="") for number in range(50, 53)),
        *(span(number) for number in range(60, 62)),
    ]
    # an id that both sides have more than once
    left += [msgspec.structs.replace(left[29], turn=1)]
    verdicts = [
        compare_sides(side(left, LOSSES), side(right, name="b"), Settings(engine=engine, master="local[2]"), shown=4)
        for engine in ("duckdb", "spark")
    ]
    duckdb, spark = (msgspec.structs.replace(verdict, engine="") for verdict in verdicts)
    assert spark == duckdb
    assert duckdb.counts.keys() == {"missing", "different", "duplicate", "foreign", "extra"}
    assert duckdb.losses == {"time-in-milliseconds": 20}


def test_a_master_that_cannot_be_reached_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyspark", reason="needs the extra `spark`")
    monkeypatch.setenv("JAVA_HOME", "/nowhere")
    with pytest.raises(ConfigurationError, match="needs Java 17 or newer"):
        compare_sides(side([]), side([]), Settings(engine="spark", master="nonsense://x"))

from __future__ import annotations

import re
from pathlib import Path

from tests.outcomes import test_grpc, test_poison, test_too_large, test_transient

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "outcomes.md"


def rows() -> list[list[str]]:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    return [row for row in cells if row[0] not in ("answer", "---")]


def test_every_answer_of_the_tables_stands_in_the_documentation() -> None:
    documented = {name for row in rows() for name in row[0].split("; ")}
    cases = [*test_transient.NOT_STORED, *test_transient.PERHAPS_STORED, *test_grpc.CASES]
    tested = {case.name for case in cases} | test_poison.BREAKAGES.keys() | test_too_large.REFUSALS.keys()
    assert len(tested) > 70
    assert tested - documented == set()


def test_every_answer_of_the_documentation_names_its_test() -> None:
    assert len(rows()) > 50
    assert [row for row in rows() if len(row) != 4 or not re.search(r"`tests/[\w/]+\.py::test_\w+`", row[3])] == []

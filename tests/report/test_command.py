"""`validate --html` and `--junit`, against the development backend: written as a whole, and told in time if not."""

from __future__ import annotations

import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.workplace import EVERYTHING, ROOT, Workplace, both, change_observation, langfuse
from tracebridge.delivery.evidence import Compared
from tracebridge.delivery.state import State
from tracebridge.devserver import DevServer
from tracebridge.journal import layout


@pytest.fixture
def place(tmp_path: Path, devserver: DevServer) -> Workplace:
    """A user's folder, with three old sessions that both backends hold."""
    place = Workplace(tmp_path / "here", both(devserver))
    place.backfill(shutil.copytree(ROOT / "tests" / "data" / "legacy", tmp_path / "old"))
    return place


def test_both_reports_tell_of_every_sink_and_the_exit_code_stays(place: Workplace) -> None:
    html, junit = place.folder / "report.html", place.folder / "report.xml"
    ran = place.call("validate", "--html", html, "--junit", junit)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.splitlines()[0].startswith("langfuse: CLEAN (http://127.0.0.1:")

    page = html.read_text("utf-8")
    assert "Nothing is lost: langfuse and otel hold all that was recorded" in page
    assert "LangFuse cuts start and end times to whole milliseconds." in page
    assert f"tracebridge --config {place.config} validate --html {html} --junit {junit}" in page
    assert [suite.attrib["name"] for suite in ElementTree.parse(junit).getroot()] == [
        "tracebridge.langfuse",
        "tracebridge.otel",
    ]
    assert sorted(file.name for file in place.folder.iterdir() if file.is_file()) == [
        "report.html",
        "report.xml",
        "tracebridge.yaml",
    ]


def test_a_sink_that_cannot_be_read_keeps_no_verdict_on_the_others_back(place: Workplace, devserver: DevServer) -> None:
    sinks = both(devserver)
    del sinks["otel"]["reader"]
    place.configure({"otel": sinks["otel"], "langfuse": sinks["langfuse"]})
    change_observation(devserver, place.observed("langfuse")[0], name="another name")
    junit = place.folder / "report.xml"
    ran = place.call("validate", "--junit", junit)
    assert (ran.returncode, ran.stderr) == (1, "")
    assert "langfuse: FINDINGS" in ran.stdout
    assert "otel: NOT EVERYTHING COULD BE COMPARED" in ran.stdout
    assert "needs `reader:`" in ran.stdout
    suites = {suite.attrib["name"]: suite.attrib for suite in ElementTree.parse(junit).getroot()}
    assert (suites["tracebridge.otel"]["errors"], suites["tracebridge.langfuse"]["failures"]) == ("1", "1")
    verdicts = place.verdicts()
    assert [verdict["exit_code"] for verdict in verdicts.values()] == [2, 1]


def test_a_validation_of_what_is_new_where_nothing_is_passes_in_all_its_reports(place: Workplace) -> None:
    assert place.call("validate", "--sink", "langfuse").returncode == 0
    html, junit = place.folder / "report.html", place.folder / "report.xml"
    ran = place.call("validate", "--sink", "langfuse", "--since-last", "--html", html, "--junit", junit)
    assert ran.returncode == 0
    (suite,) = ElementTree.parse(junit).getroot()
    assert (suite.attrib["errors"], suite.attrib["failures"]) == ("0", "0")
    assert "sessions were found clean before" in html.read_text("utf-8")
    assert "nothing was compared" not in html.read_text("utf-8")


def test_what_was_changed_at_the_backend_is_in_the_reports(place: Workplace, devserver: DevServer) -> None:
    turn = next(span for span in place.observed("langfuse", EVERYTHING) if span.kind == "turn")
    change_observation(devserver, turn, output="Nobody said <b>this</b>.")
    html, junit = place.folder / "report.html", place.folder / "report.xml"
    ran = place.call("validate", "--json", "--sink", "langfuse", "--html", html, "--junit", junit)
    assert ran.returncode == 1
    assert ran.stdout.startswith("[")

    page = html.read_text("utf-8")
    assert "Do not switch anything off: langfuse is not as recorded" in page
    assert "&lt;b&gt;this" in page
    assert "<b>" not in page
    (failure,) = ElementTree.parse(junit).getroot().iter("failure")
    assert failure.attrib["type"] == "different"


def test_what_is_written_down_of_earlier_comparisons_is_the_coverage(place: Workplace, devserver: DevServer) -> None:
    (session, *_) = layout.session_folders(place.folder.parent / "old")
    size = layout.events_file(session).stat().st_size
    state = State(layout.state_file(place.trace_dir))
    try:
        target = state.target("langfuse", devserver.url)
        number = next(number for number, path in state.folders().items() if path == session.parent)
        evidence = Compared(folder=number, session=session.name, compared_ns=1, size=size, rules="", spans=1, defects=0)
        state.evidence.add(target, state.evidence.begin(target, "{}"), [evidence])
    finally:
        state.close()
    html = place.folder / "report.html"
    assert place.call("validate", "--sink", "langfuse", "--html", html).returncode == 0
    page = html.read_text("utf-8")
    assert "Coverage over time" in page
    assert "All 26 spans of 3 sessions recorded on 2025-03-04 are in langfuse and equal" in page


@pytest.mark.parametrize("option", ["--html", "--junit"])
def test_a_place_that_cannot_be_written_to_is_refused_before_anything_is_read(
    tmp_path: Path, devserver: DevServer, option: str
) -> None:
    place = Workplace(tmp_path / "here", {"langfuse": langfuse(devserver)})
    for path, said in (
        (tmp_path / "nowhere" / "report", f"there is no folder {tmp_path / 'nowhere'}; make it first"),
        (tmp_path, "is a folder; name a file in it"),
    ):
        ran = place.call("validate", option, path)
        assert (ran.returncode, ran.stdout) == (2, "")
        assert ran.stderr == f"tracebridge: {option} {path}: {said}\n"
    assert not sum(devserver.requests.values())


def test_a_report_that_cannot_be_written_takes_nothing_from_the_verdict_and_leaves_nothing(place: Workplace) -> None:
    # the name with which it begins is longer than file names may be
    long = place.folder / ("r" * 250 + ".html")
    ran = place.call("validate", "--sink", "otel", "--html", long)
    assert ran.returncode == 2
    assert ran.stdout.startswith("otel: CLEAN")
    assert ran.stderr == f"tracebridge: {long}: the report cannot be written: File name too long\n"
    assert not list(place.folder.glob("*html*"))

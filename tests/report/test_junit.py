"""JUnit: well-formed whatever the traces hold, as the schema that CI systems go by wants it, and countable."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given

from tests.report.samples import HOSTILE, TEXTS, different, finding, hostile_report, report, verdict
from tracebridge.report import Report, junit
from tracebridge.validation import Uncompared

CHILDREN = {
    "testsuites": ["testsuite"],
    "testsuite": ["properties", "testcase", "system-out", "system-err"],
    "properties": ["property"],
    "testcase": ["error", "failure"],
}
REQUIRED = {
    "testsuite": {"name", "package", "id", "hostname", "timestamp", "tests", "failures", "errors", "time"},
    "testcase": {"name", "classname", "time"},
    "property": {"name", "value"},
    "error": {"type"},
    "failure": {"type"},
}
OPTIONAL = {"testsuite": {"skipped"}, "error": {"message"}, "failure": {"message"}}
TIMESTAMP = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}")


def checked(told: Report) -> ElementTree.Element:
    """The document, checked against the schema of the Ant tasks, which the readers of JUnit reports go by."""
    text = junit.document(told)
    root = ElementTree.fromstring(text.encode("utf-8"))
    for element in root.iter():
        required = REQUIRED.get(element.tag, set())
        assert required <= set(element.keys()) <= required | OPTIONAL.get(element.tag, set()), element.tag
        order = CHILDREN.get(element.tag, [])
        places = [order.index(child.tag) for child in element]
        assert places == sorted(places), element.tag
    for number, suite in enumerate(root):
        assert [child.tag for child in suite if child.tag != "testcase"] == ["properties", "system-out", "system-err"]
        assert suite.attrib["id"] == str(number)
        assert TIMESTAMP.fullmatch(suite.attrib["timestamp"])
        assert float(suite.attrib["time"]) >= 0
        for attribute, path in (("tests", "testcase"), ("failures", "*/failure"), ("errors", "*/error")):
            assert int(suite.attrib[attribute]) == len(suite.findall(path))
        names = [(case.attrib["classname"], case.attrib["name"]) for case in suite.iter("testcase")]
        assert len(names) == len(set(names))
        assert all(property_.attrib["name"].strip() and property_.attrib["value"] for property_ in suite[0])
    return root


def test_a_clean_sink_is_a_suite_of_the_same_questions_all_of_them_passed() -> None:
    (suite,) = checked(report(verdict()))
    assert suite.attrib["timestamp"] == "2026-11-27T13:02:05"
    assert (suite.attrib["tests"], suite.attrib["failures"], suite.attrib["errors"]) == ("6", "0", "0")
    assert [case.attrib["name"] for case in suite.iter("testcase")] == [
        "everything that is owed was compared",
        "no span is missing",
        "no span is different",
        "no span is there too often",
        "no span is there that was never recorded",
        "no span is pending",
    ]


def test_the_questions_stay_the_same_when_something_is_found() -> None:
    def names(told: Report) -> list[str]:
        return [case.attrib["name"] for case in checked(told).iter("testcase")]

    assert names(report(verdict())) == names(report(verdict(findings=(finding(), different(1, 2)))))


def test_each_class_of_findings_fails_its_question_and_what_was_not_compared_is_an_error() -> None:
    found = (finding("missing", command="tracebridge ship"), finding("missing"), different(1, 2), finding("foreign"))
    (suite,) = checked(report(verdict(findings=found, uncompared=(Uncompared(session_id="ada", reason="still open"),))))
    failures = {failure.attrib["type"]: failure for failure in suite.iter("failure")}
    (error,) = suite.iter("error")
    assert failures.keys() == {"missing", "different"}
    assert failures["missing"].attrib["message"] == "2 spans: Recorded in the journal, and not there."
    assert "  to do: tracebridge ship\n" in (failures["missing"].text or "")
    assert "  differs in: output" in (failures["different"].text or "")
    assert (error.attrib["message"], error.text) == ("1 session could not be compared", "session ada: still open")


def test_having_compared_nothing_is_an_error() -> None:
    (suite,) = checked(report(verdict(sessions=0, expected=0, equal=0, spans={})))
    assert suite.attrib["errors"] == "1"


def test_what_was_found_clean_before_is_no_error_and_is_told() -> None:
    (suite,) = checked(report(verdict(sessions=0, expected=0, equal=0, spans={}, known_clean=5)))
    assert (suite.attrib["errors"], suite.attrib["failures"]) == ("0", "0")
    assert {one.attrib["name"]: one.attrib["value"] for one in suite.iter("property")}["found clean before"] == "5"


def test_a_hundred_thousand_findings_are_counted_and_a_few_of_them_told() -> None:
    text = junit.document(report(verdict(findings=(finding(),) * 100_000)))
    assert 'message="100,000 spans: ' in text
    assert "and 99,950 more" in text
    assert len(text) < 10_000


def test_each_sink_has_its_suite() -> None:
    suites = checked(report(verdict(), verdict(sink="otel", findings=(finding(),))))
    assert [suite.attrib["name"] for suite in suites] == ["tracebridge.langfuse", "tracebridge.otel"]
    assert [suite.attrib["failures"] for suite in suites] == ["0", "1"]


@pytest.mark.parametrize("text", HOSTILE)
def test_it_is_well_formed_with_hostile_content(text: str) -> None:
    checked(hostile_report(text))


@given(TEXTS)
def test_it_is_well_formed_with_any_content(text: str) -> None:
    checked(hostile_report(text))

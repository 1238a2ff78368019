"""The report as one HTML page: the answer first, then what it rests on. It needs no script and asks no server."""

from __future__ import annotations

from tracebridge.report import words
from tracebridge.report.markup import Child, Element, element
from tracebridge.report.record import Report
from tracebridge.report.sections import sink_section
from tracebridge.report.style import CSS

_BADGES = {0: ("good", "Clean"), 1: ("bad", "Findings"), 2: ("open", "Not proved")}
_NOTHING_ELSE = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def document(report: Report) -> str:
    """The HTML document. Nothing in it is executed or loaded, whatever the traces hold."""
    return f"<!doctype html>\n{element('html', _head(report), _body(report), lang='en')}\n"


def _head(report: Report) -> Element:
    return element(
        "head",
        element("meta", charset="utf-8"),
        # before anything that it is to hold for
        element("meta", http_equiv="Content-Security-Policy", content=_NOTHING_ELSE),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"Validation: {words.title(report)}"),
        element("style", CSS),
    )


def _body(report: Report) -> Element:
    look, name = _BADGES[report.exit_code]
    return element(
        "body",
        element(
            "header",
            element("p", f"tracebridge validation report · {words.moment(report.made_ns)}", class_="kind"),
            element("p", element("span", name, class_=f"badge {look}")),
            element("h1", words.title(report)),
            [
                element("p", words.answer(sink), class_=f"lead is-{_BADGES[sink.verdict.exit_code][0]}")
                for sink in report.sinks
            ],
            class_="page",
        ),
        element("main", [sink_section(sink, *_BADGES[sink.verdict.exit_code]) for sink in report.sinks]),
        _footer(report),
    )


def _footer(report: Report) -> Element:
    facts: dict[str, Child] = {
        "Command": element("code", report.command),
        "Made": words.moment(report.made_ns),
        "By": f"tracebridge {report.version}",
        "Result": f"exit code {report.exit_code} (0: all was compared and equal; 1: something was found; "
        "2: something could not be compared)",
    }
    rows = [element("tr", element("th", name, scope="row"), element("td", fact)) for name, fact in facts.items()]
    return element(
        "footer",
        element("h2", "How this was made"),
        element(
            "p",
            "Every span that the journal says should be there was computed from the recorded events, read back through "
            "the backend's public interface, and compared field by field.",
            class_="soft",
        ),
        element("table", element("tbody", rows), class_="facts"),
        element("div", [element("span", label) for label in ("Name", "Date", "Signature")], class_="sign"),
    )

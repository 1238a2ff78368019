"""Coverage over time as a chart, with its figures in a table for who cannot see it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from tracebridge.report import words
from tracebridge.report.markup import Child, Element, element
from tracebridge.report.record import Day

MOST_BARS: Final = 62
"""Bars that can be told apart on a telephone; with more days a bar is a month, and then a year."""

_HEIGHT: Final = 100.0
_BAR: Final = 0.8
"""Width of a bar, where the next one begins at 1."""


def coverage(days: Sequence[Day]) -> Child:
    """How many of the sessions of each day were compared, and how many of those are clean."""
    title = element("h3", "Coverage over time")
    if not days:
        return None
    bars, unit = _bars(days)
    owed, compared, clean = (sum(getattr(day, name) for day in days) for name in ("owed", "compared", "clean"))
    said = (
        f"Of {words.quantity(owed, 'owed session')}, {compared:,} were compared as they are now, in this validation or "
        f"an earlier one, and {clean:,} of those are clean."
    )
    return [
        title,
        element("p", said),
        _drawn(bars, said),
        element("div", element("span", bars[0].date), element("span", bars[-1].date), class_="axis")
        if len(bars) > 1
        else element("div", element("span", bars[0].date), class_="axis"),
        element(
            "ul",
            [
                element("li", element("i", class_=look), name)
                for look, name in (("clean", "clean"), ("found", "compared, with findings"), ("rest", "not compared"))
            ],
            class_="legend",
        ),
        element("details", element("summary", f"Sessions by {unit}, by the time they began (UTC)"), _table(bars, unit)),
    ]


def _bars(days: Sequence[Day]) -> tuple[list[Day], str]:
    if len(days) <= MOST_BARS:
        return list(days), "day"
    months = _merged(days, lambda date: date[:7])
    return (months, "month") if len(months) <= MOST_BARS else (_merged(days, lambda date: date[:4]), "year")


def _merged(days: Sequence[Day], name: Callable[[str], str]) -> list[Day]:
    merged: dict[str, Day] = {}
    for day in days:
        key = name(day.date)
        before = merged.get(key, Day(date=key, owed=0, compared=0, clean=0))
        merged[key] = Day(
            date=key,
            owed=before.owed + day.owed,
            compared=before.compared + day.compared,
            clean=before.clean + day.clean,
        )
    return list(merged.values())


def _drawn(bars: Sequence[Day], said: str) -> Element:
    scale = _HEIGHT / max(bar.owed for bar in bars)
    drawn: list[Child] = []
    # few bars must not become walls
    width = max(len(bars), 12)
    for place, bar in enumerate(bars):
        top = _HEIGHT
        for look, count in (
            ("clean", bar.clean),
            ("found", bar.compared - bar.clean),
            ("rest", bar.owed - bar.compared),
        ):
            height = count * scale
            top -= height
            if count:
                drawn.append(
                    element(
                        "rect",
                        class_=look,
                        x=f"{place + (1 - _BAR) / 2:g}",
                        y=f"{top:.3f}",
                        width=f"{_BAR:g}",
                        height=f"{height:.3f}",
                    )
                )
    return element(
        "svg",
        drawn,
        class_="chart",
        viewBox=f"0 0 {width} {_HEIGHT:g}",
        preserveAspectRatio="none",
        role="img",
        aria_label=said,
    )


def _table(bars: Sequence[Day], unit: str) -> Element:
    names = (unit.capitalize(), "Owed", "Compared", "Clean")
    looks = ("", "number", "number", "number")
    head = [element("th", name, scope="col", class_=look) for name, look in zip(names, looks, strict=True)]
    rows = [
        element(
            "tr",
            element("th", bar.date, scope="row"),
            [element("td", f"{count:,}", class_="number") for count in (bar.owed, bar.compared, bar.clean)],
        )
        for bar in bars
    ]
    return element("table", element("thead", element("tr", head)), element("tbody", rows))

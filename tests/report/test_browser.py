"""The page in a real browser: nothing has to be scrolled sideways, nothing is asked for, nothing runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.report import chromium
from tests.report.chromium import Tab
from tests.report.samples import HOSTILE, different, finding, hostile_report, report, verdict
from tracebridge.report import Report, page

pytestmark = pytest.mark.slow

WIDTHS = (320, 390, 1280)
UNBROKEN = report(
    verdict(
        sink="x" * 300,
        findings=(
            finding(session_id="s" * 500, journal="/" + "a" * 500, link="https://example.com/" + "b" * 500),
            different("c" * 5_000, "d" * 5_000),
            different({"e" * 500: 1}, {"e" * 500: 2}, field="f" * 500),
        ),
        losses={"g" * 300: 1},
    )
)
REPORTS = {
    "words without a place to break": UNBROKEN,
    **{f"hostile: {text!a}": hostile_report(text) for text in HOSTILE},
}


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with chromium.opened_tab(chromium.require(), tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.mark.parametrize("told", REPORTS.values(), ids=REPORTS)
def test_it_fits_a_telephone_and_a_desk_and_stays_by_itself(tab: Tab, told: Report, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text(page.document(told), encoding="utf-8")
    for width in WIDTHS:
        tab.requested.clear()
        tab.open(file, width, 844)
        assert tab.value("window.innerWidth") == width
        assert tab.value("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
        assert tab.value("document.querySelectorAll('script, img, style style, [onerror], [onmouseover]').length") == 0
        assert tab.requested == [file.as_uri()]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_its_text_can_be_read_in_both_schemes(tab: Tab, tmp_path: Path, scheme: str) -> None:
    file = tmp_path / "report.html"
    file.write_text(page.document(hostile_report("text")), encoding="utf-8")
    tab.open(file, 1280, 900, scheme)
    assert tab.value(_LEAST_CONTRAST) >= 4.5


# the smallest contrast of any text with what is behind it, by the formula of WCAG
_LEAST_CONTRAST = """
(() => {
  const numbers = colour => (colour.match(/[\\d.]+/g) || []).map(Number);
  const light = colour => {
    const linear = part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = numbers(colour).map(part => linear(part / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = element => {
    for (let e = element; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      const parts = numbers(colour);
      if (parts.length === 3 || parts[3] > 0) return colour;
    }
    return 'rgb(255, 255, 255)';
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let least = 21;
  while (walker.nextNode()) {
    if (!walker.currentNode.data.trim()) continue;
    const element = walker.currentNode.parentElement;
    const pair = [light(getComputedStyle(element).color), light(behind(element))].sort((a, b) => b - a);
    least = Math.min(least, (pair[0] + 0.05) / (pair[1] + 0.05));
  }
  return least;
})()
"""

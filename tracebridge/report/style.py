"""How the page looks: on a telephone and on a desk, in light and in dark, and on paper.

Colours are chosen for a contrast of at least 4.5 to 1 with what is behind them, in both schemes. No rule needs a
character that HTML escapes.
"""

from typing import Final

CSS: Final = """
:root {
  color-scheme: light dark;
  --ground: #f6f6f3; --card: #ffffff; --ink: #1c1d1f; --soft: #5a5d63; --line: #dfdfd9; --code: #f1f1ed;
  --good: #17693c; --good-fill: #2f9e62; --good-ground: #e7f4ec;
  --bad: #a8221b; --bad-fill: #d0453c; --bad-ground: #fcebe9;
  --open: #7a5200; --open-fill: #c98a12; --open-ground: #fbf1dc; --rest-fill: #c9c9c1;
  --gone: #fbd5d1; --come: #c9ebd6; --accent: #1f4fa3;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #141517; --card: #1d1f22; --ink: #ececea; --soft: #a4a7ad; --line: #34373c; --code: #26292d;
    --good: #7ad3a0; --good-fill: #3fa56d; --good-ground: #16301f;
    --bad: #ff9d94; --bad-fill: #d9564c; --bad-ground: #3a1a18;
    --open: #eec06a; --open-fill: #c98a12; --open-ground: #33270f; --rest-fill: #53575d;
    --gone: #6b2a26; --come: #1f5537; --accent: #9bbdf7;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--ground); color: var(--ink);
  font: 1rem/1.55 ui-sans-serif, system-ui, -apple-system, Helvetica, Arial, sans-serif;
  overflow-wrap: anywhere;
}
main, header.page, footer { max-width: 62rem; margin: 0 auto; padding: 0 1.25rem; }
header.page { padding-top: 2.5rem; }
.kind { margin: 0; color: var(--soft); font-size: .875rem; }
h1 { margin: .7rem 0 1rem; font-size: clamp(1.6rem, 1.1rem + 2.2vw, 2.35rem); line-height: 1.18;
  letter-spacing: -.018em; font-weight: 650; text-wrap: balance; }
h2 { margin: 0; font-size: 1.3rem; line-height: 1.25; letter-spacing: -.01em; }
h3 { margin: 2.25rem 0 .6rem; font-size: 1.05rem; line-height: 1.3; }
h4 { margin: 1.5rem 0 .2rem; font-size: 1rem; }
h5 { margin: 0; font-size: .95rem; font-weight: 600; }
p { margin: .4rem 0; max-width: 46rem; }
header.page .kind + p { margin-top: 1.1rem; }
.lead { margin: .7rem 0; padding-left: .9rem; border-left: .2rem solid var(--line); font-size: 1.075rem; }
.lead.is-good { border-color: var(--good-fill); }
.lead.is-bad { border-color: var(--bad-fill); }
.lead.is-open { border-color: var(--open-fill); }
.soft { color: var(--soft); }
.badge { display: inline-block; padding: .2rem .7rem; border-radius: 1rem; font-size: .8125rem; font-weight: 650;
  letter-spacing: .01em; }
.good { color: var(--good); background: var(--good-ground); }
.bad { color: var(--bad); background: var(--bad-ground); }
.open { color: var(--open); background: var(--open-ground); }
section.sink { margin: 2rem 0; padding: 1.6rem 1.75rem 1.9rem; background: var(--card); border: 1px solid var(--line);
  border-radius: .75rem; }
.top { display: flex; flex-wrap: wrap; gap: .4rem 1rem; align-items: baseline; justify-content: space-between; }
.tiles { display: grid; grid-template-columns: repeat(4, 1fr); gap: 1px; margin: 1.4rem 0 0; padding: 0;
  background: var(--line); border: 1px solid var(--line); border-radius: .5rem; overflow: hidden; }
.tiles div { padding: .8rem 1rem .7rem; background: var(--card); }
.tiles dt { color: var(--soft); font-size: .8125rem; }
.tiles dd { margin: 0; font-size: 1.6rem; font-weight: 600; line-height: 1.25; letter-spacing: -.01em;
  font-variant-numeric: tabular-nums; }
.tiles .is-bad dd { color: var(--bad); }
.tiles .is-open dd { color: var(--open); }
table { width: 100%; border-collapse: collapse; font-size: .9375rem; }
th, td { padding: .5rem .75rem .5rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
tr:last-child th, tr:last-child td { border-bottom: 0; }
th { font-weight: 600; }
thead th { color: var(--soft); font-size: .8125rem; font-weight: 500; }
tbody th { width: 11rem; color: var(--soft); font-weight: 500; }
table.named tbody th { width: 14rem; color: var(--ink); }
td.number, th.number { padding-right: 0; text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
code, pre, .text { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: .8125rem; }
code { padding: .1rem .3rem; background: var(--code); border-radius: .25rem; }
a { color: var(--accent); text-underline-offset: .15em; }
.finding { margin: .9rem 0; padding: .85rem 1rem 1rem; border: 1px solid var(--line); border-radius: .5rem; }
.finding dl { display: grid; grid-template-columns: 6.5rem 1fr; gap: .2rem .75rem;
  margin: .45rem 0 0; font-size: .875rem; }
.finding dt { color: var(--soft); }
.finding dd { margin: 0; min-width: 0; }
.sides { display: grid; grid-template-columns: 1fr 1fr; gap: .75rem; margin: .3rem 0 0; }
.field { margin: 1rem 0 0; font-size: .875rem; font-weight: 600; }
.side { min-width: 0; padding: .5rem .75rem .65rem; background: var(--code); border-radius: .4rem; }
.side h6 { margin: 0 0 .25rem; color: var(--soft); font-size: .75rem; font-weight: 500; }
.text { margin: 0; white-space: pre-wrap; line-height: 1.5; }
mark { color: inherit; border-radius: .15rem; padding: .05rem 0; font-weight: 600; }
.expected mark { background: var(--come); }
.observed mark { background: var(--gone); }
.skipped { white-space: nowrap; color: var(--soft); font-style: italic; }
details { margin: .6rem 0 0; font-size: .875rem; }
summary { cursor: pointer; color: var(--accent); }
.chart { display: block; width: 100%; height: 8rem; margin: .75rem 0 0; }
.chart .clean { fill: var(--good-fill); }
.chart .found { fill: var(--bad-fill); } .chart .rest { fill: var(--rest-fill); }
.axis { display: flex; justify-content: space-between; gap: 1rem; padding-top: .3rem; border-top: 1px solid var(--line);
  color: var(--soft); font-size: .8125rem; }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; margin: .6rem 0 0; padding: 0; list-style: none;
  font-size: .875rem; }
.legend i { display: inline-block; width: .75rem; height: .75rem; margin-right: .4rem; border-radius: .15rem; }
.legend .clean { background: var(--good-fill); } .legend .found { background: var(--bad-fill); }
.legend .rest { background: var(--rest-fill); }
ul.plain { margin: .4rem 0; padding-left: 1.1rem; font-size: .9375rem; }
ul.plain li { margin: .2rem 0; }
footer { padding-bottom: 4rem; }
.sign { display: grid; grid-template-columns: 2fr 1fr 2fr; gap: 1.5rem; margin: 3.25rem 0 0; }
.sign span { padding-top: .35rem; border-top: 1px solid var(--soft); color: var(--soft); font-size: .8125rem; }
@media (max-width: 40rem) {
  main, header.page, footer { padding-left: 1rem; padding-right: 1rem; }
  header.page { padding-top: 1.5rem; }
  section.sink { margin: 1.25rem 0; padding: 1.15rem 1rem 1.4rem; }
  .tiles { grid-template-columns: 1fr 1fr; }
  .sides { grid-template-columns: 1fr; }
  .finding { padding: .75rem .8rem .85rem; }
  .finding dl { grid-template-columns: 1fr; gap: 0; }
  .finding dd { margin-bottom: .4rem; }
  table.facts th, table.facts td { display: block; width: auto; padding-right: 0; }
  table.facts th { padding-bottom: 0; border: 0; }
  table.facts td { padding-top: 0; }
  table.named tbody th { width: 42%; }
  .sign { grid-template-columns: 1fr; gap: 2.75rem; }
}
@media print {
  :root { --ground: #ffffff; --card: #ffffff; --ink: #000000; --soft: #444444; --line: #bbbbbb; --code: #f4f4f4;
    --good: #17693c; --good-fill: #2f9e62; --good-ground: #ffffff;
    --bad: #a8221b; --bad-fill: #d0453c; --bad-ground: #ffffff;
    --open: #7a5200; --open-ground: #ffffff; --rest-fill: #c9c9c1;
    --gone: #fbd5d1; --come: #c9ebd6; --accent: #000000; }
  * { print-color-adjust: exact; }
  body { font-size: 10.5pt; }
  main, header.page, footer { max-width: none; padding: 0; }
  section.sink { padding: 0; border: 0; }
  .finding, .tiles, tr, .chart { break-inside: avoid; }
  h2, h3, h4, h4 + p { break-after: avoid; }
  .badge { padding: 0; }
  .sign { grid-template-columns: 2fr 1fr 2fr; gap: 1.5rem; break-inside: avoid; }
}
"""

"""The report's style sheet: light and dark, wide and narrow, nothing fetched."""

from __future__ import annotations

CSS = """
:root { color-scheme: light dark;
  --page: #f6f6f4; --card: #ffffff; --ink: #161614; --soft: #55544e; --faint: #8b8a83; --rule: #e2e1dc;
  --active: #2a78d6; --control: #c2571a; --good: #16803c; --bad: #c93434; --warn: #9a6700; --tint: 42, 120, 214;
  --badtint: 201, 52, 52; }
@media (prefers-color-scheme: dark) { :root {
  --page: #131312; --card: #1d1d1b; --ink: #f2f1ec; --soft: #b9b8b0; --faint: #8b8a83; --rule: #34332f;
  --active: #5b9ff0; --control: #ec8447; --good: #4cc274; --bad: #f07070; --warn: #e0b04a; --tint: 91, 159, 240;
  --badtint: 240, 112, 112; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 28px 16px 64px; }
h1 { font-size: clamp(1.5rem, 4.5vw, 2.1rem); line-height: 1.2; margin: 0 0 8px; letter-spacing: -.01em; }
h2 { font-size: 1.15rem; margin: 0 0 4px; }
h3 { font-size: .95rem; margin: 18px 0 6px; }
p { margin: 0 0 12px; max-width: 70ch; }
.soft, .note { color: var(--soft); }
.note { font-size: .88rem; }
section { background: var(--card); border: 1px solid var(--rule); border-radius: 12px; padding: 20px;
  margin-top: 18px; min-width: 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin-top: 18px; }
.tile { background: var(--card); border: 1px solid var(--rule); border-radius: 12px; padding: 14px 16px; }
.tile b { display: block; font-size: 1.55rem; line-height: 1.25; font-weight: 650; }
.tile span { color: var(--soft); font-size: .85rem; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 340px), 1fr)); gap: 20px; }
.pair > * { min-width: 0; }
.scroll { overflow-x: auto; }
.scroll svg { min-width: 720px; }
svg { display: block; width: 100%; height: auto; font: 12px system-ui, sans-serif; }
svg text { fill: var(--ink); }
svg .tick, svg .lane { fill: var(--soft); font-size: 12px; }
svg .middle { text-anchor: middle; }
svg .end { text-anchor: end; }
svg .grid { stroke: var(--rule); }
svg .axis { stroke: var(--faint); }
svg .line { fill: none; stroke-width: 2; }
svg .whisker { stroke-width: 1.5; opacity: .55; }
svg .dot { stroke: var(--card); stroke-width: 1.5; }
svg .on { fill: var(--card); font-weight: 600; font-size: 11px; }
.active { --c: var(--active); }
.control { --c: var(--control); }
.good { --c: var(--good); }
.bad { --c: var(--bad); }
.plain { --c: var(--soft); }
polyline.line { stroke: var(--c); }
.whisker { stroke: var(--c); }
.dot, .bar, .mark, .band { fill: var(--c); }
svg .band { opacity: .14; }
svg .goal { stroke: var(--soft); stroke-dasharray: 5 4; }
.legend { display: flex; gap: 16px; flex-wrap: wrap; margin: 8px 0 4px; font-size: .88rem; }
.key i { display: inline-block; width: 12px; height: 12px; border-radius: 3px; background: var(--c);
  margin-right: 6px; vertical-align: -1px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
.grid-table { width: 100%; min-width: 640px; }
.grid-table th { text-align: left; color: var(--soft); font-weight: 600; }
.grid-table th, .grid-table td { padding: 7px 10px 7px 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
.grid-table .n { text-align: right; padding-right: 16px; white-space: nowrap; }
.grid-table small { color: var(--faint); white-space: nowrap; }
.grid-table .note small { white-space: normal; }
.examples img { width: 40px; height: 40px; object-fit: contain; image-rendering: pixelated; display: block; }
.chip { display: inline-block; border: 1px solid var(--c); color: var(--c); border-radius: 99px; padding: 0 9px;
  font-size: .8rem; font-weight: 600; white-space: nowrap; }
.confusion { table-layout: fixed; width: 100%; max-width: 460px; font-size: .78rem; }
.confusion th { color: var(--soft); font-weight: 600; padding: 2px; overflow: hidden; text-overflow: ellipsis; }
.confusion tbody th { text-align: right; padding-right: 6px; white-space: nowrap; }
.confusion.many thead th { height: 64px; vertical-align: bottom; }
.confusion.many thead span { writing-mode: vertical-rl; transform: rotate(180deg); }
.confusion.many tbody th { width: 84px; }
.confusion.many thead th:first-child { width: 84px; }
.confusion td { text-align: center; height: 26px; border: 1px solid var(--card); border-radius: 4px;
  background: rgba(var(--tint), calc(var(--share) * .6)); }
.confusion td.miss { background: rgba(var(--badtint), calc(var(--share) * 1.6)); }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(104px, 1fr)); gap: 10px; margin: 8px 0; }
.cards.texts { grid-template-columns: repeat(auto-fill, minmax(min(100%, 270px), 1fr)); }
.card { border: 1px solid var(--rule); border-left: 3px solid var(--c); border-radius: 8px; padding: 8px;
  font-size: .78rem; line-height: 1.35; overflow-wrap: anywhere; }
.card img { width: 64px; height: 64px; object-fit: contain; image-rendering: pixelated; display: block;
  margin: 0 auto 6px; background: var(--page); border-radius: 4px; }
.card b { display: block; font-size: .9rem; }
.card span { color: var(--soft); }
.card q { display: block; quotes: none; font-size: .88rem; margin-bottom: 4px; }
details { border-top: 1px solid var(--rule); padding: 8px 0; }
summary { cursor: pointer; font-weight: 600; }
.log { list-style: none; padding: 0; margin: 8px 0; font-size: .88rem; }
.log li { display: flex; gap: 10px; padding: 3px 0; }
.log time { color: var(--faint); flex: 0 0 64px; font-variant-numeric: tabular-nums; }
.bars { display: grid; grid-template-columns: auto minmax(40px, 1fr) minmax(0, 2fr); gap: 6px 12px; align-items: center;
  font-size: .9rem;
  max-width: 720px; }
.bars i { display: block; height: 14px; border-radius: 4px; background: var(--c); min-width: 2px; }
.bars em { font-style: normal; color: var(--soft); }
.checks { list-style: none; padding: 0; margin: 10px 0 0; }
.checks li { padding: 2px 0; }
.checks b { margin-right: 6px; }
.none { color: var(--faint); }
"""

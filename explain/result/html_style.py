"""How the page of an explanation looks: plain, in light and dark, on a phone and on paper."""

STYLE = """
:root {
  color-scheme: light dark;
  --page: #f7f7f5; --card: #ffffff; --text: #1b1d21; --soft: #5c626b; --line: #e0e2e6;
  --ink: #22262c; --other: #a3abb6; --track: #eceef1; --for: #d62828; --against: #2166c8;
  --link: #1f4fa8;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #131518; --card: #1c1f23; --text: #eceef1; --soft: #a6adb7; --line: #32373e;
    --ink: #e6e9ed; --other: #767f8b; --track: #2b2f35; --for: #ff6b61; --against: #6ea8ff;
    --link: #9dc1ff;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--page); color: var(--text);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
}
main { max-width: 920px; margin: 0 auto; padding: 24px 16px 56px; }
h1, h2, h3, p, figure, ol, ul, dl { margin: 0; padding: 0; }
h1, h2, h3 { line-height: 1.2; text-wrap: balance; overflow-wrap: anywhere; }
h1 { font-size: clamp(1.9rem, 5vw, 2.6rem); letter-spacing: -.015em; }
h2 { font-size: 1.25rem; }
h3 { font-size: .95rem; }
p, li, dd, figcaption { overflow-wrap: anywhere; }
img { display: block; max-width: 100%; }
a { color: var(--link); }
a:focus-visible { outline: 2px solid var(--link); outline-offset: 3px; border-radius: 4px; }
ol, ul { list-style: none; }
.soft { color: var(--soft); }
.small { font-size: .875rem; }
.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
.card {
  background: var(--card); border: 1px solid var(--line); border-radius: 14px;
  padding: 20px; margin-top: 20px;
}
.answer { display: grid; grid-template-columns: minmax(0, 280px) minmax(0, 1fr); gap: 28px; align-items: center; }
.answer img { width: 100%; aspect-ratio: 1; border-radius: 10px; }
.answer.bare { grid-template-columns: minmax(0, 1fr); }
.answer .words { font-size: 1.1rem; margin-top: 14px; text-wrap: pretty; }
.bar { height: 8px; border-radius: 4px; background: var(--track); overflow: hidden; }
.bar i { display: block; height: 100%; border-radius: 4px; background: var(--other); }
.chosen > .bar i { background: var(--ink); }
.chosen > .row { font-weight: 650; }
.row { display: flex; justify-content: space-between; gap: 12px; align-items: baseline; }
.row > :first-child { min-width: 0; overflow-wrap: anywhere; }
.path { counter-reset: step; margin-top: 14px; display: grid; gap: 14px; }
.path > li { counter-increment: step; display: grid; grid-template-columns: 28px minmax(0, 1fr); column-gap: 12px; }
.path > li::before {
  content: counter(step); width: 26px; height: 26px; border-radius: 50%; border: 1px solid var(--line);
  color: var(--soft); font-size: .8rem; display: grid; place-items: center;
}
.path a { text-decoration-thickness: 1px; text-underline-offset: 3px; }
.path .bar { margin: 4px 0; }
.decision > .parts { display: grid; grid-template-columns: 256px minmax(0, 1fr); gap: 16px 28px; margin-top: 16px; }
.decision h2 .soft { font-weight: 400; }
.map img, .change .frame { border-radius: 10px; overflow: hidden; width: 100%; aspect-ratio: 1; }
figcaption { font-size: .875rem; color: var(--soft); margin-top: 6px; }
.children { display: grid; gap: 10px; align-content: start; }
.children li > .bar { margin-top: 3px; }
.aside { margin-top: 20px; padding-top: 16px; border-top: 1px solid var(--line); }
.change { display: grid; grid-template-columns: 128px minmax(0, 1fr); gap: 8px 20px; align-items: start; margin-top: 22px; }
.change.bare { grid-template-columns: minmax(0, 1fr); }
.frame { position: relative; }
.frame img { width: 100%; height: 100%; }
.frame svg { position: absolute; inset: 0; width: 100%; height: 100%; }
.frame path { fill: none; vector-effect: non-scaling-stroke; stroke-linecap: round; }
.frame .halo { stroke: #000a; stroke-width: 5; }
.frame .edge { stroke: #fff; stroke-width: 2; }
.evidence { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 20px; }
.thumbs { display: grid; grid-template-columns: repeat(auto-fill, minmax(64px, 1fr)); gap: 10px; margin-top: 8px; }
.thumbs img { width: 100%; aspect-ratio: 1; border-radius: 8px; }
.thumbs .none { aspect-ratio: 1; border-radius: 8px; border: 1px dashed var(--line); display: grid; place-items: center; font-size: .75rem; color: var(--soft); text-align: center; padding: 4px; }
.thumbs figcaption { margin-top: 3px; font-size: .8rem; line-height: 1.3; }
.key { display: inline-block; width: .75em; height: .75em; border-radius: 3px; margin-right: .35em; }
.key.for { background: var(--for); } .key.against { background: var(--against); }
.made { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 4px 20px; margin-top: 10px; font-size: .875rem; }
.made dt { color: var(--soft); }
.made dd { margin: 0; }
@media (max-width: 640px) {
  main { padding: 12px 12px 40px; }
  .card { padding: 16px; }
  .answer, .decision > .parts { grid-template-columns: minmax(0, 1fr); }
  .answer img { max-width: 320px; }
  .map { max-width: 320px; }
  .evidence { grid-template-columns: minmax(0, 1fr); }
  .change { grid-template-columns: 104px minmax(0, 1fr); gap: 14px; }
  .made { grid-template-columns: minmax(0, 1fr); gap: 0; }
  .made dd { margin-bottom: 8px; }
}
@media print { body { background: #fff; } .card { break-inside: avoid; } }
"""

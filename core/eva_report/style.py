"""Look of a report: system fonts, light and dark, from 400 px on, on screens and on paper."""

STYLE = """
:root {
  color-scheme: light dark;
  --back: #f6f7f9; --panel: #ffffff; --text: #1d2229; --faint: #5b6470; --line: #dde1e7;
  --accent: #1a62c4; --code: #eef1f5; --head: #f2f4f7; --good: 31 136 61; --bad: 207 80 10;
  --c0: #1f6fd0; --c1: #d9480f; --c2: #2b8a3e; --c3: #8a3ab9; --c4: #b8860b; --c5: #0b8f8f;
  --c6: #c2255c; --c7: #5c6670;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --back: #101317; --panel: #181c22; --text: #e4e8ee; --faint: #9aa4b1; --line: #2e353f;
    --accent: #7ab3ff; --code: #222831; --head: #1f242c; --good: 63 185 100; --bad: 255 140 66;
    --c0: #6cb0ff; --c1: #ff9a5c; --c2: #63d27c; --c3: #d19bff; --c4: #f2c94c; --c5: #4dd4d4;
    --c6: #ff7fae; --c7: #aab4c0;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--back); color: var(--text);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
}
main { max-width: 1216px; margin: 0 auto; padding: 28px 24px 56px; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .4rem; text-wrap: balance; }
h2 { font-size: 1.2rem; margin: 0 0 .6rem; }
h3 { font-size: 1rem; margin: 1.1rem 0 .5rem; }
h1, h2, h3, p, li, dd, figcaption { overflow-wrap: anywhere; }
p { margin: 0 0 .8rem; max-width: 76ch; white-space: pre-line; }
.summary { font-size: 1.06rem; }
.note, small { color: var(--faint); font-size: .875rem; }
.note { margin: .5rem 0 0; }
a { color: var(--accent); }
bdi { unicode-bidi: isolate; }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; margin: 0 0 1.2rem; font-size: .93rem; }
section, .facts {
  background: var(--panel); border: 1px solid var(--line); border-radius: 10px;
  padding: 18px 20px 20px; margin: 0 0 18px; min-width: 0;
}
.glance { display: flex; flex-wrap: wrap; gap: 12px; margin: 0 0 18px; }
.tile {
  background: var(--panel); border: 1px solid var(--line); border-radius: 10px;
  padding: 10px 20px 12px; color: var(--faint); min-width: 0; overflow-wrap: anywhere;
}
.tile b { display: block; color: var(--text); font-size: 1.5rem; line-height: 1.25; }
.tile b { font-variant-numeric: tabular-nums; font-weight: 600; }
.tile:first-child { border-color: var(--accent); }
.tile:first-child b { font-size: 2.1rem; line-height: 1.1; color: var(--accent); }
.tile { display: flex; flex-direction: column; justify-content: flex-end; }
dl { display: grid; grid-template-columns: minmax(8rem, max-content) 1fr; gap: 0; margin: 0; }
dt, dd { padding: .32rem 0; border-top: 1px solid var(--line); margin: 0; min-width: 0; }
dt { color: var(--faint); padding-right: 1.6rem; max-width: 18rem; overflow-wrap: anywhere; }
dt:first-of-type, dd:first-of-type { border-top: 0; }
dd { white-space: pre-line; }
code, pre { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
dd code {
  display: block; max-height: 9rem; overflow: auto; font-size: .875rem; background: var(--code);
  border-radius: 5px; padding: .3rem .6rem; margin: .1rem 0;
}
pre {
  background: var(--code); border-radius: 7px; padding: .65rem .85rem; margin: .3rem 0 1rem;
  font-size: .875rem; white-space: pre-wrap; overflow-wrap: anywhere; user-select: all;
  -webkit-user-select: all;
}
.box { overflow: auto; max-height: 34rem; max-width: 100%; border: 1px solid var(--line); }
.box { border-radius: 7px; scrollbar-width: thin; width: fit-content; }
.box {  /* a shade at a side where more can be scrolled to */
  background:
    linear-gradient(to right, var(--panel) 40%, transparent) left / 32px 100% no-repeat local,
    linear-gradient(to left, var(--panel) 40%, transparent) right / 32px 100% no-repeat local,
    linear-gradient(to right, rgb(0 0 0 / .22), transparent) left / 14px 100% no-repeat scroll,
    linear-gradient(to left, rgb(0 0 0 / .22), transparent) right / 14px 100% no-repeat scroll;
}
table { border-collapse: separate; border-spacing: 0; font-size: .93rem; }
th, td {
  padding: .32rem .8rem; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); overflow-wrap: break-word;
}
th > bdi, td > bdi { display: inline-block; max-width: 22rem; overflow-wrap: break-word; }
th { font-weight: 600; }
th[scope=row] { font-weight: 500; min-width: 5rem; }
thead th {
  position: sticky; top: 0; background: var(--head); z-index: 1; color: var(--faint);
  font-size: .85rem; vertical-align: bottom;
}
tr:last-child > td, tr:last-child > th[scope=row] { border-bottom: 0; }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
thead .n { white-space: normal; overflow-wrap: break-word; }
.scores .meaning { max-width: 44rem; color: var(--faint); font-size: .9rem; min-width: 14rem; }
.scores tbody .n { font-weight: 600; }
.confusion th, .confusion td { padding: .25rem .45rem; border-bottom: 0; }
.confusion td { border: 1px solid var(--panel); min-width: 2.6rem; text-align: right; }
.confusion th[scope=row] {
  position: sticky; left: 0; background: var(--head); min-width: 0; text-align: right;
}
.confusion th > bdi { max-width: 9rem; }
.corner { left: 0; z-index: 2; font-weight: 400; min-width: 6.2rem; overflow-wrap: normal; }
thead th.corner { z-index: 3; }
.beside { display: flex; flex-wrap: wrap; gap: 18px 32px; align-items: flex-start; }
.beside > div { min-width: 0; max-width: 100%; }
.beside h3 { margin-top: 0; }
.up span {
  writing-mode: sideways-lr; max-height: 9rem; overflow: hidden; text-overflow: ellipsis;
  white-space: nowrap; margin-left: auto;
}
@supports not (writing-mode: sideways-lr) {
  .up span { writing-mode: vertical-rl; transform: rotate(180deg); }
}
.up { text-align: right; }
.right { background: rgb(var(--good) / calc(.14 + .5 * var(--s))); }
.wrong { background: rgb(var(--bad) / calc(.12 + .6 * var(--s))); }
.none { color: var(--faint); opacity: .6; }
.map { display: block; fill: currentColor; }
.box:has(> .map) { max-height: none; }
.map image { image-rendering: pixelated; }
.map .frame { fill: none; stroke: var(--line); }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); }
.plots { column-gap: 18px; }
.plot { display: block; width: 100%; max-width: 620px; height: auto; overflow: visible; }
.plot text { font-size: 14px; fill: var(--faint); font-variant-numeric: tabular-nums; }
.plot .name { fill: var(--text); }
.plot .grid { stroke: var(--line); stroke-width: 1; }
.plot path, .legend path { fill: none; stroke-width: 2; stroke-linejoin: round; }
.c0 { stroke: var(--c0); } .c1 { stroke: var(--c1); } .c2 { stroke: var(--c2); }
.c3 { stroke: var(--c3); } .c4 { stroke: var(--c4); } .c5 { stroke: var(--c5); }
.c6 { stroke: var(--c6); } .c7 { stroke: var(--c7); }
.dashed { stroke-dasharray: 6 4; }
.plot circle { fill: var(--panel); stroke-width: 3; }
.legend {
  list-style: none; margin: .5rem 0 0; padding: 0; display: flex; flex-wrap: wrap;
  gap: .2rem 1.3rem; font-size: .9rem;
}
.legend svg { width: 22px; height: 8px; vertical-align: middle; }
.legend i {
  display: inline-block; width: 1em; height: 1em; vertical-align: -.12em; border-radius: 3px;
  border: 1px solid var(--faint);
}
.legend + .gallery { margin-top: .8rem; }
.gallery { display: grid; gap: 16px; }
.tiles { grid-template-columns: repeat(auto-fill, minmax(min(100%, 260px), 1fr)); }
figure { margin: 0; min-width: 0; }
.tiles figure { display: flex; flex-direction: column-reverse; justify-content: flex-end; }
.tiles figcaption { margin: .35rem 0 0; }
figcaption { font-size: .9rem; margin: 0 0 .35rem; white-space: pre-line; }
.rows figure { border-top: 1px solid var(--line); padding-top: .7rem; }
.pictures { display: grid; gap: 10px; align-items: start; }
.pictures { grid-template-columns: repeat(auto-fit, minmax(min(100%, 300px), 1fr)); }
.frame { min-width: 0; display: flex; flex-direction: column; }
.frame > span { font-size: .85rem; color: var(--faint); order: -1; overflow-wrap: anywhere; }
.frame > label {
  display: block; position: relative; aspect-ratio: var(--r); cursor: zoom-in;
  width: min(100%, max(3rem, calc(32rem * var(--r)))); background: var(--code);
  border-radius: 5px; overflow: hidden;
}
.frame img { display: block; width: 100%; height: 100%; object-fit: contain; }
.frame .sharp { image-rendering: pixelated; }
.frame input { position: absolute; opacity: 0; top: 0; left: 0; margin: 0; }
.frame input:focus-visible + img { outline: 3px solid var(--accent); outline-offset: -3px; }
.frame > label:has(:checked) { overflow: visible; }
.frame input:checked + img {
  position: fixed; inset: 0; z-index: 10; width: 100vw; height: 100vh; height: 100dvh;
  padding: 1.5vmin; background: rgb(12 14 17 / .96); cursor: zoom-out;
  outline: 0;
}
footer { color: var(--faint); font-size: .85rem; }
ul.links { margin: 0; padding-left: 1.2rem; }
@media (max-width: 640px) {
  main { padding: 16px 12px 36px; }
  section, .facts { padding: 14px 14px 16px; border-radius: 8px; }
  h1 { font-size: 1.35rem; }
  dl { grid-template-columns: 1fr; }
  dt { max-width: none; padding: .32rem 0 0; font-size: .875rem; }
  dd { border-top: 0; padding-top: 0; }
  .tile { padding: 8px 14px 9px; }
  .tiles { grid-template-columns: repeat(auto-fill, minmax(min(100%, 150px), 1fr)); }
  .gallery.tiles { gap: 14px 10px; }
  .plot text { font-size: 19px; }
  th, td { padding: .32rem .5rem; }
  th > bdi, td > bdi { max-width: 13rem; }
  .box td:last-child:not(.n):not(.meaning) { min-width: 8rem; }
  dd code { max-height: 22rem; }
  .scores, .scores thead, .scores tbody { display: block; }
  .scores tr {
    display: grid; grid-template-columns: minmax(5rem, 1fr) repeat(var(--n), 5rem);
    border-bottom: 1px solid var(--line); padding: .3rem 0;
  }
  .scores tr > * { border: 0; padding: .1rem .7rem; min-width: 0; }
  .scores .n { padding-left: 0; }
  .scores tr > :last-child { grid-column: 1 / -1; min-width: 0; }
  .scores thead tr > :last-child { display: none; }
  .scores thead tr { background: var(--head); }
}
@media print {
  :root { --back: #fff; color-scheme: light; font-size: 12px; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  body { font-size: 1rem; }
  .plots { grid-template-columns: 1fr 1fr; }
  .frame > label { cursor: auto; width: min(100%, max(3rem, calc(24rem * var(--r)))); }
  main { max-width: none; padding: 0; }
  dd code { max-height: none; }
  nav { display: none; }
  section, .facts { border: 0; padding: 0; }
  .box { max-height: none; overflow: visible; border: 0; }
  figure, tr, .plot, pre { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  .frame input:checked + img { position: static; width: 100%; height: 100%; padding: 0; }
}
"""

"""How the review page looks: on a wide screen, on a phone, in print, light and dark."""

from __future__ import annotations

_LIGHT = """\
  --removed: #ffeceb; --removed-word: #ffc9c5; --added: #e4f9e9; --added-word: #a9ebba;
  --gap: #f0f2f5; --pointed: #fff6d6; --minus: #9b1c14; --plus: #0f5329; --number: #4b5563;
  --keyword: #a3134f; --string: #0a4a8f; --comment: #4a5361; --figure: #7a3d00;
  --definition: #5b2da8; --link: #0b57b8; --look: #7a4a00; --left: #4b5563;"""
_DARK = """\
  --removed: #3b1f23; --removed-word: #6e2b31; --added: #14321f; --added-word: #19502d;
  --gap: #1a1f27; --pointed: #3a3317; --minus: #ffb3ac; --plus: #86e0a4; --number: #b6bec9;
  --keyword: #ff9fbd; --string: #a9d1ff; --comment: #b4bcc8; --figure: #ffc58a;
  --definition: #d8bfff; --link: #8fc1ff; --look: #f0c060; --left: #b6bec9;"""

STYLE = f"""\
:root {{
{_LIGHT}
  --mono: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }}
@media (prefers-color-scheme: dark) {{ :root {{
{_DARK} }} }}
""" + """\
html { scroll-padding-top: 3.25rem; }
body { max-width: 110rem; padding: 1.25rem 1.5rem 3rem; overflow-wrap: anywhere; }
a { color: var(--link); text-underline-offset: .15em; }
a:focus-visible, summary:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
h1 { font-size: 1.75rem; margin: .25rem 0; letter-spacing: -.01em; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .75rem; }
h4 { font-size: .9rem; margin: 0; font-weight: 600; }
p { margin: .4rem 0; max-width: 75ch; }
small, .faint { color: var(--faint); font-size: .875rem; }
code, pre, .path { font-family: var(--mono); font-size: .875em; }
.path { overflow-wrap: anywhere; }
.v { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%);
  white-space: nowrap; }
.skip { position: absolute; left: -99rem; background: var(--page); padding: .5rem 1rem; z-index: 3; }
.skip:focus { left: 1rem; top: 1rem; }
.totals { list-style: none; display: grid; gap: .75rem; padding: 0; margin: 1.25rem 0;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 10rem), 1fr)); }
.totals li { border: 1px solid var(--line); border-radius: .5rem; background: var(--panel);
  padding: .6rem .9rem; line-height: 1.35; }
.totals b { display: inline-block; width: 100%; font-size: 1.5rem; font-variant-numeric: tabular-nums; }
.totals a { color: inherit; }
.command { background: var(--panel); border: 1px solid var(--line); border-radius: .5rem;
  padding: .6rem .9rem; margin: .4rem 0; white-space: pre-wrap; overflow-wrap: anywhere; }
.contents { display: grid; gap: 0 3rem; grid-template-columns: 1fr; }
.contents ul, .reasons, .sites, .places { list-style: none; padding: 0; margin: 0; }
.contents li { padding: .2rem 0; }
.contents .files li { display: flex; gap: .2rem .9rem; justify-content: space-between;
  flex-wrap: wrap; border-bottom: 1px solid var(--line); padding: .3rem 0; }
.contents h3 { margin: .9rem 0 .2rem; }
.contents summary { cursor: pointer; padding: .15rem 0; }
.places { columns: 26rem auto; column-gap: 2rem; padding: .2rem 0 .6rem 1.1rem; }
.figure { white-space: nowrap; font-variant-numeric: tabular-nums; font-size: .875rem; }
.plus { color: var(--plus); } .minus { color: var(--minus); }
.chip { font: 600 .8rem/1.5 var(--mono); white-space: nowrap; }
.state { font-weight: 600; white-space: nowrap; }
.warning > .state { color: var(--look); } .refused > .state { color: var(--left); }
.applied > .state { color: var(--plus); }
details.file { border: 1px solid var(--line); border-radius: .5rem; margin: 0 0 1rem; }
details.file > summary { position: sticky; top: 0; z-index: 2; background: var(--panel);
  border-radius: .5rem; padding: .55rem .9rem; cursor: pointer; display: flex; gap: .25rem .9rem;
  flex-wrap: wrap; align-items: baseline; list-style: none; }
details.file > summary::-webkit-details-marker { display: none; }
details.file > summary::before { content: "\\25B8"; width: .9em; color: var(--faint); }
details.file[open] > summary::before { content: "\\25BE"; }
details.file[open] > summary { border-bottom: 1px solid var(--line);
  border-radius: .5rem .5rem 0 0; }
summary h3 { margin: 0; font: 600 .925rem/1.5 var(--mono); flex: 1 1 20rem;
  min-width: 0; }
.about { padding: .5rem .9rem; }
.hunk { border-top: 1px solid var(--line); }
summary + .hunk { border-top: 0; }
.why { padding: .6rem .9rem .5rem; }
.reasons { font-size: .9rem; }
.reasons li { padding: .1rem 0; max-width: 110ch; overflow-wrap: anywhere; }
.reasons .rest { color: var(--faint); }
.hint { color: var(--faint); }
.hint::before { content: "\\2192\\00a0"; }
table.code { table-layout: fixed; width: 100%; border-collapse: collapse;
  font: .75rem/1.55 var(--mono); font-variant-numeric: normal; }
.code th { padding: 0; border: 0; height: 0; line-height: 0; position: relative; }
.code td { position: relative; border: 0; padding: 0 .4rem 0 5.4rem; text-indent: -1rem; height: 1.55em;
  vertical-align: top; white-space: pre-wrap; overflow-wrap: anywhere; tab-size: 8; }
.two td + td { border-left: 1px solid var(--line); }
.two .changed td { background: var(--gap); }
.changed td.d { background: var(--removed); } .changed td.a { background: var(--added); }
.two .changed td.d { background: var(--removed); } .two .changed td.a { background: var(--added); }
.code td.at { background: var(--pointed); }
.code b { position: absolute; left: 0; width: 3rem; text-align: right; text-indent: 0;
  font-weight: 400; color: var(--number); user-select: none; }
.code i { position: absolute; left: 3.5rem; text-indent: 0; font-style: normal; font-weight: 700;
  user-select: none; }
.d i { color: var(--minus); } .a i { color: var(--plus); }
del, ins { text-decoration: none; }
mark { color: inherit; border-radius: .2em; }
del mark { background: var(--removed-word); } ins mark { background: var(--added-word); }
.code span { unicode-bidi: isolate; }
.k { color: var(--keyword); } .s { color: var(--string); } .c { color: var(--comment); }
.n, .b { color: var(--figure); } .f, .a > ins > .a, span.a { color: var(--definition); }
.u { font: 700 .85em/1 var(--mono); color: var(--page); background: var(--minus);
  border-radius: .2em; padding: 0 .25em; user-select: none; }
.sites > li { padding: .5rem 0; } .sites table { margin-top: .25rem; }
.sites .code { border: 1px solid var(--line); }
.group { border: 1px solid var(--line); border-radius: .5rem; padding: .6rem .9rem; margin: 0 0 1rem; }
.group > h3, .page > h3 { margin: 0 0 .25rem; }
.pages { columns: 2 36rem; column-gap: 3rem; }
.page { break-inside: avoid; border-top: 1px solid var(--line); padding: .9rem 0; max-width: 80ch; }
.example { background: var(--panel); border-radius: .4rem; padding: .6rem .8rem; margin: .5rem 0;
  white-space: pre-wrap; overflow-wrap: anywhere; font-size: .8rem; line-height: 1.5; }
.example del, .example ins { display: inline-block; width: 100%; }
.example del { background: var(--removed); } .example ins { background: var(--added); }
:target { scroll-margin-top: 3.25rem; }
h4 .chip { font-size: inherit; }
.hunk:target > .why, .page:target > h3, .sites > :target { box-shadow: inset .25rem 0 var(--link);
  padding-left: .9rem; }
@media (min-width: 70rem) { .contents { grid-template-columns: 1fr 1fr; } }
@media (max-width: 48rem) {
  body { padding: .75rem; }
  h1 { font-size: 1.4rem; }
  .totals { grid-template-columns: 1fr 1fr; }
  .code, .code tbody, .code tr, .code td { display: block; }
  .code thead { display: none; }
  .code td { word-break: break-all; tab-size: 4; } .w { word-spacing: -.3em; }
  .code td { padding-left: 4.4rem; height: auto; min-height: 1.55em; }
  .code b { width: 2.4rem; } .code i { left: 2.75rem; }
  .two td + td { border-left: 0; }
  .two tbody:not(.changed) td:first-child, .two td:empty { display: none; }
  .two .changed { display: flex; flex-direction: column; }
  .two .changed tr { display: contents; }
  .two .changed td.d { order: 1; } .two .changed td.a { order: 2; }
  details.file > summary { gap: 0 .6rem; } summary h3 { flex-basis: 80%; }
}
""" + f"""\
@media print {{ :root {{
{_LIGHT}
  --link: #000000; }}
""" + """\
  html { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  details::details-content { content-visibility: visible; block-size: auto; }
  details > summary::before { content: none !important; }
  details.file > summary { position: static; }
  .skip { display: none; }
  a { text-decoration: none; }
  .code { font-size: .62rem; } .code td { padding-left: 4.2rem; }
  .code b { width: 2.4rem; } .code i { left: 2.7rem; }
  .hunk, .group li, .page, .totals li { break-inside: avoid; }
  .code tr { break-after: auto; }
  summary, .why, h4 { break-after: avoid; }
  .places, .pages { columns: 1; } .w { word-spacing: normal; }
}
"""

"""The report's style sheet: one column on a phone, light and dark by the reader's own setting."""

CSS = """
:root { color-scheme: light dark; --paper:#fbfbfa; --card:#ffffff; --ink:#1c2024; --soft:#5d6670; --rule:#e3e5e8;
  --blue:#2563c9; --orange:#c8590a; --red:#c22f3d; --tint:#eef3fb; --green:#2c8a4b; --violet:#8245c9; --rose:#c4377f;
  --teal:#11818c; }
@media (prefers-color-scheme: dark) { :root { --paper:#14171a; --card:#1c2024; --ink:#e6e8ea; --soft:#9aa4ae;
  --rule:#31373d; --blue:#78a9ff; --orange:#f2a35e; --red:#ff7d86; --tint:#1f2937; --green:#6fd08c;
  --violet:#bd95f5; --rose:#f58cc0; --teal:#5fcdd6; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, -apple-system, "Segoe UI",
  Roboto, "Helvetica Neue", Arial, sans-serif; }
main, header { max-width: 1120px; margin: 0 auto; padding: 0 clamp(16px, 3vw, 32px); }
header { padding-top: 28px; }
h1 { font-size: clamp(1.5rem, 4.5vw, 2.1rem); line-height: 1.2; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 44px 0 14px; padding-top: 18px; border-top: 1px solid var(--rule); }
h3 { font-size: 1rem; margin: 22px 0 8px; }
p { margin: 0 0 10px; max-width: 70ch; }
code, pre { font: 0.86em/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
pre { overflow-x: auto; background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 14px;
  margin: 0;
  overflow-wrap: normal; }
.note, .sub { color: var(--soft); font-size: 0.92rem; }
nav { display: flex; flex-wrap: wrap; gap: 6px 16px; margin: 20px 0 0; font-size: 0.92rem; }
a { color: var(--blue); text-decoration: none; } a:hover { text-decoration: underline; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(128px, 1fr)); gap: 12px; margin: 22px 0 0; }
.tile { background: var(--card); border: 1px solid var(--rule); border-radius: 12px; padding: 12px 16px; display:
  flex;
  flex-direction: column; }
.tile span, .tile small { color: var(--soft); font-size: 0.85rem; }
.tile strong { white-space: nowrap; font-size: 1.25rem; font-weight: 650; line-height: 1.35; }
.tile.main { grid-column: span 2; background: var(--tint); border-color: transparent; }
.tile.main strong { font-size: 2.5rem; line-height: 1.15; color: var(--blue); }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 330px), 1fr)); gap: 16px; }
.beside { align-items: center; } .split { display: flex; flex-wrap: wrap; gap: 8px 56px; align-items: flex-start; }
.split > * { min-width: 0; max-width: 100%; } .split h3 { margin-top: 8px; }
@media (min-width: 760px) { .charts { grid-template-columns: 1fr 1fr; } .charts svg text, .beside svg text {
  font-size: 9px; } }
figure { margin: 0; min-width: 0; }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: 12px; padding: 12px 12px 6px; }
.card > figcaption { display: flex; justify-content: space-between; gap: 12px; padding: 0 4px 6px; font-size:
  0.95rem; }
.legend { display: flex; flex-wrap: wrap; justify-content: flex-end; gap: 2px 14px; font-size: 0.85rem;
  color: var(--soft); }
.legend.left { justify-content: flex-start; margin-bottom: 12px; }
.swatch::before { content: ""; display: inline-block; width: 11px; height: 11px; border-radius: 3px; margin: 0 6px -1px
  0; background: var(--tone); border: 1px solid var(--rule); }
.key::before { content: ""; display: inline-block; width: 14px; height: 3px; border-radius: 2px; margin: 0 6px 4px
  0;
  background: currentColor; vertical-align: middle; }
.key.s1::before { background: var(--blue); } .key.s2::before { background: var(--orange); }
.key.s3::before { background: var(--green); } .key.s4::before { background: var(--violet); }
.key.s5::before { background: var(--rose); } .key.s6::before { background: var(--teal); }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--soft); font-size: 11.5px; font-family: inherit; font-variant-numeric: tabular-nums; }
svg .grid { stroke: var(--rule); } svg .faint { font-size: 11px; }
svg .line { fill: none; stroke-width: 2.2; stroke-linejoin: round; stroke-linecap: round; }
svg .line.s1 { stroke: var(--blue); } svg .line.s2 { stroke: var(--orange); }
svg .line.s3 { stroke: var(--green); } svg .line.s4 { stroke: var(--violet); } svg .line.s5 { stroke: var(--rose); }
svg .line.s6 { stroke: var(--teal); } svg .line.many { stroke: var(--soft); stroke-width: 1; opacity: 0.45; }
svg .dot.s3 { fill: var(--green); } svg .dot.s4 { fill: var(--violet); } svg .dot.s5 { fill: var(--rose); }
svg .dot.s6 { fill: var(--teal); }
svg .dot.s1 { fill: var(--blue); } svg .dot.s2 { fill: var(--orange); } svg .hover { fill: transparent; }
svg .diagonal { stroke: var(--soft); stroke-dasharray: 4 4; } svg .count { fill: var(--blue); opacity: 0.22; }
.scroll { overflow-x: auto; -webkit-overflow-scrolling: touch; }
table { border-collapse: collapse; font-size: 0.92rem; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 14px 6px 0; text-align: left; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th { color: var(--soft); font-weight: 600; font-size: 0.85rem; }
td:first-child { max-width: 22rem; overflow: hidden; text-overflow: ellipsis; }
.num { text-align: right; } td.num:last-child, th.num:last-child { padding-right: 2px; }
.bar { display: inline-block; min-width: 74px; padding: 1px 6px; text-align: right; border-radius: 4px;
  background: linear-gradient(90deg, color-mix(in srgb, var(--blue) 22%, transparent) var(--level, 0%), transparent
  0); }
.heat { border-collapse: separate; border-spacing: 2px; font-size: 0.85rem; }
.heat th, .heat td { border: 0; padding: 0; } .heat th[scope=row] { padding: 0 8px 0 0; text-align: right;
  max-width: 9rem;
  overflow: hidden; text-overflow: ellipsis; }
.heat .corner { vertical-align: bottom; text-align: right; font-weight: 400; padding: 0 8px 4px 0; }
.heat .corner span { display: inline-block; white-space: normal; max-width: 5.5rem; line-height: 1.3; }
.heat .turned { vertical-align: bottom; height: 1px; } .heat .turned span { writing-mode: vertical-rl; rotate:
  180deg;
  max-height: 9rem; overflow: hidden; text-overflow: ellipsis; padding: 4px 0; line-height: 1; display:
  inline-block; }
.heat thead th { text-align: center; }
.cell { min-width: 34px; height: 34px; text-align: center; border-radius: 4px; background: color-mix(in srgb,
  var(--rule) 45%, transparent);
  max-width: none !important; }
.dense .cell { min-width: 25px; height: 25px; font-size: 0.72rem; }
.cell.right { background: color-mix(in srgb, var(--blue) var(--level), transparent); }
.cell.wrong { background: color-mix(in srgb, var(--red) var(--level), transparent); }
.cell.strong { color: var(--paper); font-weight: 600; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(158px, 1fr)); gap: 14px; }
.gallery figure { background: var(--card); border: 1px solid var(--rule); border-radius: 12px; overflow: hidden; }
.pair { display: grid; grid-template-columns: 1fr 1fr; } .pair.one { grid-template-columns: 1fr; }
.pair img { width: 100%; aspect-ratio: 1; object-fit: cover; display: block; image-rendering: auto; }
.scenes { grid-template-columns: repeat(auto-fill, minmax(min(100%, 460px), 1fr)); }
.scenes .pair { gap: 2px; align-items: start; } .scenes .pair img { aspect-ratio: auto; object-fit: contain; }
.scenes .said span:first-child { color: var(--soft); }
.gallery figcaption { padding: 8px 10px 10px; font-size: 0.9rem; line-height: 1.35; overflow-wrap: anywhere; }
.said .num { white-space: nowrap; color: var(--soft); } .said { display: flex; justify-content: space-between; gap:
  8px; } .truth b { color: var(--red); }
.gallery code { color: var(--soft); font-size: 0.72rem; display: block; margin-top: 2px; }
.diagrams { display: flex; flex-wrap: wrap; gap: 16px; align-items: flex-start; }
.diagram { max-width: 100%; overflow-x: auto; background: var(--card); border: 1px solid var(--rule);
  border-radius: 12px; padding: 14px;
  } .diagram img { display: block; margin: 0 auto; max-width: 100%; height: auto; }
@media (max-width: 700px) { .diagram img { max-width: none; } th, td { padding-right: 10px; } .bar { min-width:
  60px; }
  .heat th[scope=row] { max-width: 6.2rem; font-size: 0.78rem; padding-right: 6px; } .heat { font-size: 0.78rem; }
  .cell { min-width: 22px; height: 26px; } .heat { border-spacing: 1px; } td:first-child { max-width: 9.5rem; } }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 16px; margin: 0; font-size: 0.92rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
.facts h3 { margin-top: 0; }
details { margin-top: 12px; } summary { cursor: pointer; color: var(--blue); margin-bottom: 8px; }
footer { max-width: 1120px; margin: 48px auto 0; padding: 16px clamp(16px, 3vw, 32px) 32px; color: var(--soft);
  font-size: 0.85rem; }
@media print { nav { display: none; } .card, figure, tr { break-inside: avoid; } }
"""

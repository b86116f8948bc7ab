"use strict";
// Text from records only ever becomes a text node: no name can bring in markup.
const data = JSON.parse(document.getElementById("data").textContent);
const COLOURS = ["#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#ff8ab7", "#a463f2", "#97bbf5", "#9c6b4e", "#9498a0"];
const root = document.documentElement;
const percent = (share) => `${+(100 * share).toFixed(1)} %`;
const css = (name) => getComputedStyle(root).getPropertyValue(name).trim();

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes ?? {})) made.setAttribute(key, value);
  made.append(...children.filter((child) => child !== null));
  return made;
}

// --- light and dark ---------------------------------------------------------------------------

function setTheme(dark) {
  root.dataset.theme = dark ? "dark" : "light";
  drawPareto();
  openCell();
}

function startTheme() {
  const system = matchMedia("(prefers-color-scheme: dark)");
  root.dataset.theme = system.matches ? "dark" : "light";
  system.addEventListener("change", (event) => setTheme(event.matches));
  document.getElementById("theme").addEventListener("click", () => setTheme(root.dataset.theme !== "dark"));
}

// --- filters ----------------------------------------------------------------------------------

function filterRows() {
  const words = document.getElementById("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const sparsity = document.getElementById("sparsity").value;
  for (const row of document.querySelectorAll("table.filtered tbody tr")) {
    const text = row.textContent.toLowerCase();
    const fits = words.every((word) => text.includes(word));
    row.hidden = !fits || (sparsity !== "" && row.dataset.sparsity !== undefined && row.dataset.sparsity !== sparsity);
  }
}

// --- Pareto plot ------------------------------------------------------------------------------

const drawn = (front) => front.qualities.length && front.costs.length;
const shown = { front: Math.max(0, data.fronts.findIndex(drawn)), quality: 0, cost: 0, off: new Set() };

function chooser(label, options, key) {
  const select = element("select", { id: `pareto-${key}` }, ...options.map((text, i) => element("option", { value: i }, text)));
  select.value = Math.min(shown[key], Math.max(options.length - 1, 0));
  select.addEventListener("change", () => {
    shown[key] = +select.value;
    if (key === "front") startPareto();
    else drawPareto();
  });
  return element("label", {}, label, select);
}

function startPareto() {
  const front = data.fronts[shown.front];
  if (!front || !drawn(front)) {
    document.getElementById("pareto-plot").replaceChildren("Nothing that could be drawn was measured.");
    if (!front) return;
  }
  shown.quality = Math.min(shown.quality, Math.max(front.qualities.length - 1, 0));
  shown.cost = Math.min(shown.cost, Math.max(front.costs.length - 1, 0));
  const several = new Set(data.fronts.map((each) => each.campaign)).size > 1;
  const names = data.fronts.map((each) => (several ? `${each.model} (${each.campaign})` : each.model));
  document.getElementById("pareto-choices").replaceChildren(
    chooser("Model", names, "front"),
    chooser("Quality", front.qualities.map((axis) => axis.title), "quality"),
    chooser("Cost", front.costs.map((axis) => axis.title), "cost"),
  );
  document.getElementById("pareto-legend").replaceChildren(...front.lines.map(chip));
  document.getElementById("pareto-lost").textContent = front.lost.length ? `Not measured: ${front.lost.join("; ")}` : "";
  drawPareto();
}

function chip(line, i) {
  const dot = element("i");
  dot.style.background = COLOURS[i % COLOURS.length];
  const button = element("button", { type: "button", "aria-pressed": !shown.off.has(line.name) }, dot, line.name);
  button.addEventListener("click", () => {
    if (!shown.off.delete(line.name)) shown.off.add(line.name);
    button.setAttribute("aria-pressed", !shown.off.has(line.name));
    drawPareto();
  });
  return button;
}

function positions(line, quality, cost, colour) {
  const found = [];
  for (const point of [...line.points].sort((a, b) => a.sparsity - b.sparsity)) {
    const x = point.values[cost.key], y = point.values[quality.key];
    if (!x || !y || (cost.log && x[0] <= 0)) continue;
    const end = (value) => (value === null ? null : value * quality.scale);
    let low = end(y[1]);
    if (quality.log && low !== null) low = Math.max(low, (y[0] * quality.scale) / 10);
    found.push({ name: line.name, sparsity: point.sparsity, x: x[0] * cost.scale, y: y[0] * quality.scale, low, high: end(y[2]), colour });
  }
  return found;
}

const monotone = (points) => points.every((p, i) => i === 0 || p.x >= points[i - 1].x) || points.every((p, i) => i === 0 || p.x <= points[i - 1].x);

// 1, 2 and 5 of each power of ten; where the range has few of them, even steps.
function logTicks(points) {
  const low = d3.min(points, (p) => p.low ?? p.y), high = d3.max(points, (p) => p.high ?? p.y);
  const powers = d3.range(Math.floor(Math.log10(low)), Math.ceil(Math.log10(high)) + 1);
  const round = powers.flatMap((power) => [1, 2, 5].map((digit) => +`${digit}e${power}`)).filter((value) => value >= low && value <= high);
  return round.length > 2 ? round : d3.ticks(low, high, 6);
}

function described(point, quality, cost) {
  const number = d3.format(",.4~g");
  const interval = point.low === null ? "" : ` (${number(point.low)} to ${number(point.high)})`;
  return `${point.name}, ${percent(point.sparsity)} pruned\n${quality.title}: ${number(point.y)}${interval}\n${cost.title}: ${number(point.x)}`;
}

function drawPareto() {
  const figure = document.getElementById("pareto-plot");
  const front = data.fronts[shown.front];
  const quality = front?.qualities[shown.quality], cost = front?.costs[shown.cost];
  if (!quality || !cost) return;
  const lines = front.lines.map((line, i) => positions(line, quality, cost, COLOURS[i % COLOURS.length])).filter((points) => points.length && !shown.off.has(points[0].name));
  const dense = front.dense.flatMap((line) => positions(line, quality, cost, css("--ink")));
  const all = [...lines.flat(), ...dense], sure = all.filter((point) => point.low !== null);
  const banded = lines.map((points) => points.filter((p) => p.low !== null)).filter((points) => points.length > 1 && monotone(points));
  const width = Math.max(300, figure.clientWidth || 800), narrow = width < 560;
  figure.replaceChildren(Plot.plot({
    width, height: narrow ? 330 : 440, marginLeft: 52, marginRight: 18, marginTop: 28, marginBottom: 42, inset: 10,
    style: { background: "none", color: css("--soft"), fontSize: "12px", fontFamily: css("--sans") },
    x: { label: cost.title, labelAnchor: "right", type: cost.log ? "log" : "linear", nice: !cost.log, ticks: narrow ? 4 : 8, tickFormat: cost.log ? "~s" : (value) => d3.format("~s")(value) },
    y: { label: quality.title, type: quality.log ? "log" : "linear", grid: !quality.log, ...(quality.log ? { axis: null } : {}) },
    marks: [
      quality.log ? [Plot.gridY(logTicks(all)), Plot.axisY(logTicks(all), { text: (value) => d3.format(value >= 1000 ? "~s" : "~g")(value), label: `↑ ${quality.title}` })] : null,
      banded.map((points) => Plot.areaY(points, { x: "x", y1: "low", y2: "high", fill: points[0].colour, fillOpacity: 0.12 })),
      Plot.ruleX(sure, { x: "x", y1: "low", y2: "high", stroke: "colour", strokeOpacity: 0.6 }),
      lines.map((points) => Plot.line(points, { x: "x", y: "y", stroke: points[0].colour, strokeWidth: 1.8 })),
      Plot.dot(lines.flat(), { x: "x", y: "y", fill: "colour", r: 4 }),
      Plot.dot(dense, { x: "x", y: "y", fill: "colour", symbol: "star", r: 6 }),
      Plot.text(dense, { x: "x", y: "y", text: "name", dy: -14, fill: css("--ink") }),
      Plot.tip(all, Plot.pointer({ x: "x", y: "y", title: (point) => described(point, quality, cost), fill: css("--card"), stroke: css("--rule-strong"), fontSize: 12 })),
    ],
  }));
}

// --- cells ------------------------------------------------------------------------------------

const pairs = (facts, wide) => element("dl", { class: wide ? "pairs wide" : "pairs" }, ...facts.map(([name, text]) => element("div", {}, element("dt", {}, name), element("dd", {}, text))));

function table(header, rows, right) {
  const side = (i) => ({ class: right.includes(i) ? "right" : "left" });
  const head = element("tr", {}, ...header.map((text, i) => element("th", side(i), text)));
  const body = rows.map((row) => element("tr", {}, ...row.map((text, i) => element("td", side(i), text))));
  return element("div", { class: "scroll", tabindex: 0 }, element("table", {}, element("thead", {}, head), element("tbody", {}, ...body)));
}

const small = { style: {}, marginLeft: 64, marginBottom: 36, marginTop: 22 };
const looks = () => ({ background: "none", color: css("--soft"), fontSize: "11.5px", fontFamily: css("--sans") });
const smallWidth = () => Math.max(260, Math.min(560, document.getElementById("cell").clientWidth - 48));
const figure = (plot) => element("figure", { class: "plot small" }, plot);

function heatmap(cells, columns, rows, label, domain) {
  const width = smallWidth(), room = (width - 64) / columns.length;
  const longest = Math.min(120, 7 * Math.max(...rows.map((row) => row.length), 4) + 16);
  const dark = (d) => d.value !== null && d.value > domain[0] + 0.55 * (domain[1] - domain[0]);
  return figure(Plot.plot({
    ...small, style: looks(), width, marginLeft: longest, height: 58 + Math.min(30, Math.max(6, 420 / rows.length)) * rows.length,
    x: { domain: columns, label, type: "band", tickFormat: (value) => (columns.length > 14 && columns.indexOf(value) % Math.ceil(columns.length / 12) ? "" : String(value)), tickSize: 0 },
    y: { domain: rows, label: null, type: "band", tickSize: 0 },
    color: { type: "linear", domain, range: [css("--heat-low"), css("--heat-high")] },
    marks: [
      Plot.cell(cells, { x: "column", y: "row", fill: (d) => (d.value === null ? null : d.value), inset: 0.75, rx: 2, title: "title" }),
      room > 34 && rows.length <= 16 ? Plot.text(cells.filter((d) => d.text), { x: "column", y: "row", text: "text", fill: (d) => (dark(d) ? css("--card") : css("--ink")) }) : null,
    ],
  }));
}

function lineChart(series, xLabel, yLabel) {
  const points = Object.entries(series).flatMap(([name, values]) => values.map(([x, y]) => ({ name, x, y })));
  const names = Object.keys(series);
  const colour = { domain: names, range: names.map((_, i) => COLOURS[i % COLOURS.length]) };
  return figure(Plot.plot({
    ...small, style: looks(), width: smallWidth(), height: 220, marginLeft: 50,
    x: { label: xLabel || null }, y: { label: yLabel || null, grid: true }, color: { ...colour, legend: names.length > 1 },
    marks: [Plot.line(points, { x: "x", y: "y", stroke: "name", strokeWidth: 1.6 }), points.length < 30 ? Plot.dot(points, { x: "x", y: "y", fill: "name", r: 2.4 }) : null, Plot.tip(points, Plot.pointerX({ x: "x", y: "y", title: (d) => `${d.name}\n${d3.format(".6~g")(d.x)}: ${d3.format(".4~g")(d.y)}`, fill: css("--card") }))],
  }));
}

function decisionParts(decision) {
  const layered = decision.kinds.filter((kind) => decision.kept[kind].some(([layer]) => layer !== null));
  const whole = decision.kinds.filter((kind) => !layered.includes(kind)).map((kind) => [kind, decision.kept[kind].map(([, kept, units]) => `${kept} of ${units} kept`).join(", ")]);
  const cells = layered.flatMap((kind) => decision.kept[kind].map(([layer, kept, units]) => ({ column: layer, row: kind, value: kept / units, text: `${kept}/${units}`, title: `layer ${layer}, ${kind}: ${kept} of ${units} kept` })));
  const columns = [...new Set(cells.map((cell) => cell.column))].sort((a, b) => a - b);
  return [element("h4", {}, "Decision: share of units kept in each layer"), cells.length ? heatmap(cells, columns, layered, "layer", [0, 1]) : null, whole.length ? pairs(whole) : null];
}

function notePlot(note) {
  if (note.plot === "line") return [element("h4", {}, note.title), lineChart(note.series, note.x_label, note.y_label)];
  const columns = note.columns.map((_, i) => i), rows = note.rows.map((name, i) => (note.rows.indexOf(name) === i ? name : `${name} (${i})`));
  const values = note.values.flat().filter((value) => value !== null);
  const cells = note.values.flatMap((row, r) => row.map((value, c) => ({ column: c, row: rows[r], value, text: value === null ? "" : d3.format(".2~f")(value), title: `${rows[r]}, ${note.columns[c]}: ${value ?? "none"}` })));
  const domain = d3.extent(values.length ? values : [0, 1]);
  if (domain[0] === domain[1]) domain[1] = domain[0] + 1;
  const chart = heatmap(cells, columns, rows, null, domain);
  const ends = note.columns.length ? `columns: ${note.columns.length > 8 ? `${note.columns[0]} to ${note.columns.at(-1)}` : note.columns.join(", ")}; colour: ${d3.format(".3~g")(domain[0])} to ${d3.format(".3~g")(domain[1])}` : "";
  return [element("h4", {}, note.title), chart, element("p", { class: "caption" }, ends)];
}

function numbers(cell) {
  const rows = cell.values.map(([i, value, error]) => {
    const quantity = data.quantities[i], unit = quantity.unit ? ` ${quantity.unit}` : "";
    return [quantity.title, value + unit, error, quantity.protocol, quantity.device];
  });
  return [element("h4", {}, "Numbers and their protocols"), table(["Quantity", "Value", "Error within the run", "Protocol", "Device"], rows, [1, 2])];
}

function openCell() {
  const place = document.getElementById("cell"), match = /^#cell-(\d+)$/.exec(location.hash);
  const cell = match && data.cells[+match[1]];
  place.hidden = !cell;
  if (!cell) return place.replaceChildren();
  place.replaceChildren(element("h3", {}, cell.name), element("p", {}, element("span", { class: `status ${cell.status}` }, cell.status), cell.reason ? ` ${cell.reason}` : ""), pairs(cell.facts));
  const charts = [
    cell.decision ? decisionParts(cell.decision) : null,
    cell.curve.length ? [element("h4", {}, "Loss while tuning after pruning"), lineChart({ loss: cell.curve }, "optimizer step", "mean loss")] : null,
    ...cell.plots.map(notePlot),
  ].filter(Boolean).map((parts) => element("div", {}, ...parts.filter(Boolean)));
  if (charts.length) place.append(element("div", { class: "columns" }, ...charts));
  if (cell.values.length) place.append(...numbers(cell));
  if (cell.missing.length) place.append(element("h4", {}, "Parts that are missing"), table(["Part", "Status", "Reason"], cell.missing, []));
  if (cell.notes.length) place.append(element("h4", {}, "Notes of the method"), ...cell.notes.map(([key, text]) => element("pre", {}, `${key}: ${text}`)));
  place.append(element("h4", {}, "Provenance"), pairs(data.provenances[cell.provenance]));
}

function showCell() {
  openCell();
  const place = document.getElementById("cell");
  if (!place.hidden) place.scrollIntoView();
}

startTheme();
startPareto();
document.getElementById("filter").addEventListener("input", filterRows);
document.getElementById("sparsity").addEventListener("change", filterRows);
addEventListener("hashchange", showCell);
let width = innerWidth;
addEventListener("resize", () => {
  if (innerWidth === width) return;
  width = innerWidth;
  drawPareto();
  openCell();
});
showCell();

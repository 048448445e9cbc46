// Two populations side by side: how often each feature is active in either, as a plot and as a table.

import { el, redraw } from "./dom.js";
import { featureLink, tokenChips } from "./features.js";
import { DEAD, sorted } from "./features_data.js";
import { keepSettings, linkToFeature } from "./routes.js";
import { rowKeys, rowsTable } from "./rows.js";
import { scatter } from "./scatter.js";
import { number, percent, visible, visibleToken } from "./text.js";

export async function compareView(app, { settings }) {
  const table = await app.table();
  const names = table.populations.map(({ name }) => name);
  if (names.length < 2) return alone(names);
  const chosen = (given, otherwise) => (names.includes(given) ? given : otherwise);
  const state = {
    a: chosen(settings.get("a"), names[0]),
    b: chosen(settings.get("b"), names.find((name) => name !== chosen(settings.get("a"), names[0]))),
    by: settings.get("sort") ?? "ratio",
    descending: settings.get("dir") !== "asc",
  };
  const view = { title: "Compare", node: el("div", { class: "page full" }), keys: {} };
  draw(app, table, view, state);
  return view;
}

function alone(names) {
  const why = names.length === 1 ? `All tokens are of one corpus, ${visible(names[0])}: there is nothing to compare it with.`
    : "How often features are active in each corpus is not known yet: `kubesae interpret` counts it.";
  return { title: "Compare", node: el("div", { class: "page" }, el("h1", null, "Compare"), el("p", { class: "notice" }, why)) };
}

function draw(app, table, view, state) {
  keepSettings("compare", { a: state.a, b: state.b, sort: state.by, dir: state.descending ? "desc" : "asc" });
  const pair = pairOf(table, state);
  const change = (changed) => draw(app, table, view, Object.assign(state, changed));
  const open = (place) => { location.hash = linkToFeature(table.feature(place)); };
  const columns = columnsOf(table, pair);
  const column = columns.find(({ name }) => name === state.by) ?? columns[0];
  const live = Array.from({ length: table.size }, (_, i) => i).filter((i) => !(table.flags[i] & DEAD));
  const places = sorted(table, live, column.value, state.descending);
  app.order = places.map(table.feature);
  const rows = rowsTable({ label: "Features in both populations", columns, sort: state, onSort: (by, descending) => change({ by, descending }), open });
  const canvas = el("canvas", { role: "img", "aria-label": `Features by frequency in ${state.a} and in ${state.b}; the table has the numbers` });
  redraw(view.node, chooser(table, state, change), el("div", { class: "compare" }, el("div", { class: "card plot" }, canvas), rows.node));
  view.keys = rowKeys(rows);
  view.recolour = scatter(canvas, {
    points: live.map((place) => ({ x: pair.a(place), y: pair.b(place), place })), names: [state.a, state.b].map(visible), tip: app.tip, open,
    text: (place) => `${table.feature(place)} ${nameOf(table, place)}\n${state.a} ${percent(pair.a(place))}, ${state.b} ${percent(pair.b(place))}`,
  });
  rows.show(places);
}

function nameOf(table, place) {
  return visible(table.label(place)) || visibleToken(table.tokens[place][0] ?? "");
}

// Half a row more in each, so that a feature that one population lacks has a ratio too.
function pairOf(table, state) {
  const [a, b] = [state.a, state.b].map((name) => table.populations.find((one) => one.name === name));
  const frequency = (one) => (i) => one.count[i] / Math.max(one.rows, 1);
  const smoothed = (one, i) => (one.count[i] + 0.5) / (one.rows + 1);
  return { a: frequency(a), b: frequency(b), ratio: (i) => smoothed(a, i) / smoothed(b, i), meanA: (i) => a.mean_active[i], meanB: (i) => b.mean_active[i] };
}

function chooser(table, state, change) {
  const select = (which, label) => el("label", null, label, el("select", { name: which, change: (event) => change({ [which]: event.target.value }) },
    table.populations.map(({ name }) => el("option", { value: name, selected: name === state[which] }, visible(name)))));
  return el("div", { class: "tools" }, select("a", "A"), select("b", "B"),
    el("button", { type: "button", name: "swap", click: () => change({ a: state.b, b: state.a }) }, "swap"),
    el("span", { class: "soft" }, "Ratio: frequency in A over that in B, half a token added to each count. On the edges of the plot: never."));
}

function columnsOf(table, pair) {
  const brief = (value) => percent(value, 2);
  const numeric = (name, title, value, shown) => ({ name, title, width: "minmax(94px, 1fr)", value, numeric: true, cell: (i) => shown(value(i)) });
  return [
    { name: "feature", title: "Feature", width: "84px", numeric: true, value: table.feature, cell: (i) => featureLink(table.feature(i)) },
    { name: "label", title: "Label", width: "minmax(140px, 3fr)", value: (i) => nameOf(table, i).toLowerCase(), cell: (i) => visible(table.label(i)) || tokenChips(table.tokens[i].slice(0, 1)) },
    numeric("a", "A", pair.a, brief),
    numeric("b", "B", pair.b, brief),
    numeric("ratio", "Ratio", pair.ratio, number),
    numeric("mean-a", "Mean A", pair.meanA, number),
    numeric("mean-b", "Mean B", pair.meanB, number),
  ];
}

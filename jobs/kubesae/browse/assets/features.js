// The table of features: sorted by any column, searched by label, token or number, of one kind or all.

import { el, redraw } from "./dom.js";
import { flagsOf, found, sorted } from "./features_data.js";
import { keepSettings, linkToFeature } from "./routes.js";
import { rowKeys, rowsTable } from "./rows.js";
import { count, number, percent, visible, visibleToken } from "./text.js";

export async function featuresView(app, { settings }) {
  const table = await app.table();
  const first = table.kinds.length ? "purity" : "max"; // what is plain comes first
  const state = {
    query: settings.get("q") ?? "",
    kind: settings.get("kind") ?? "",
    dead: settings.get("dead") === "1",
    by: settings.get("sort") ?? first,
    descending: settings.get("dir") !== "asc",
  };
  const page = el("div", { class: "page full" });
  const view = { title: "Features", node: page, keys: {}, search: null };
  view.search = (query) => draw(app, table, view, { ...state, query }, state);
  draw(app, table, view, state, state);
  return view;
}

function draw(app, table, view, next, state) {
  Object.assign(state, next);
  keepSettings("features", settingsOf(state));
  const change = (changed) => draw(app, table, view, { ...state, ...changed }, state);
  const columns = columnsOf(table);
  const column = columns.find(({ name }) => name === state.by) ?? columns[0];
  const places = sorted(table, found(table, state), column.value, state.descending);
  app.order = places.map(table.feature);
  const rows = rowsTable({
    label: "Features", columns, sort: state,
    onSort: (by, descending) => change({ by, descending }),
    open: (place) => { location.hash = linkToFeature(table.feature(place)); },
  });
  redraw(view.node, tools(table, state, places.length, change), rows.node,
    places.length ? null : el("p", { class: "soft", role: "status" }, "No feature is called so, or is most active on such a token."));
  view.keys = rowKeys(rows);
  rows.show(places);
}

function settingsOf({ query, kind, dead, by, descending }) {
  return { q: query, kind, dead: dead ? "1" : null, sort: by, dir: descending ? "desc" : "asc" };
}

function tools(table, state, shown, change) {
  const kinds = el("select", { name: "kind", change: (event) => change({ kind: event.target.value }) },
    el("option", { value: "" }, "all"), table.kinds.map((kind) => el("option", { value: kind, selected: kind === state.kind }, kind)));
  const dead = el("input", { name: "dead", type: "checkbox", checked: state.dead, change: (event) => change({ dead: event.target.checked }) });
  return el("div", { class: "tools" },
    table.kinds.length ? el("label", null, "Kind", kinds) : null, el("label", null, dead, "with dead ones"),
    table.kinds.length ? null : el("span", { class: "soft" }, "No labels yet: `kubesae interpret` makes them."),
    el("output", { "aria-live": "polite" }, `${count(shown)} of ${count(table.size)} features`));
}

function columnsOf(table) {
  const numeric = (name, title, width, value, shown, help) => ({ name, title, width, value, help, numeric: true, cell: (i) => shown(value(i)) });
  const labelled = table.kinds.length > 0;
  return [
    { name: "feature", title: "Feature", width: "90px", numeric: true, value: table.feature, cell: (i) => featureLink(table.feature(i)) },
    labelled && { name: "label", title: "Label", width: "minmax(170px, 2fr)", value: (i) => table.label(i).toLowerCase(), cell: (i) => visible(table.label(i)) },
    { name: "token", title: "Most active on", width: "minmax(150px, 2fr)", value: (i) => table.tokens[i][0]?.toLowerCase(), cell: (i) => tokenChips(table.tokens[i]) },
    labelled && { name: "kind", title: "Kind", width: "90px", value: table.kind, cell: table.kind },
    labelled && numeric("purity", "Purity", "84px", table.purity, (value) => (value === null ? "–" : percent(value)), "Share of sampled rows that agree with the label"),
    numeric("max", "Max", "84px", (i) => table.max[i], number, "Largest activation"),
    numeric("mean", "Mean", "92px", (i) => table.mean[i], number, "Mean activation over all tokens"),
    numeric("frequency", "Frequency", "108px", table.frequency, percent, "Share of tokens on which it is active"),
    { name: "flags", title: "Flags", width: "minmax(110px, 1fr)", value: (i) => table.flags[i], cell: (i) => flagChips(table.flags[i]) },
  ].filter(Boolean);
}

export function featureLink(feature) {
  return el("a", { href: linkToFeature(feature), tabindex: -1 }, String(feature));
}

export function tokenChips(tokens) {
  return tokens.map((token) => el("span", { class: "chip" }, visibleToken(token)));
}

export function flagChips(bits) {
  return flagsOf(bits).map((name) => el("span", { class: "flag" }, name));
}

// Everything about one feature: rows on which it is active, and what is known of it beside them.

import { histogram } from "./charts.js";
import { contextList } from "./contexts.js";
import { el, replace } from "./dom.js";
import { flagChips } from "./features.js";
import { keepSettings, linkToFeature, parseRoute } from "./routes.js";
import { count, number, percent, visible, visibleToken } from "./text.js";

const SHORT = { top: "Top", random: "Random" };

export async function featureView(app, { feature, settings }) {
  const [about, found] = await Promise.all([app.source.overview(), app.source.feature(feature)]);
  const groups = found.examples_quantiles.map((group) => ({ ...group, name: groupName(group.quantile_name) }));
  const contexts = el("div", { class: "contexts" });
  const buttons = el("div", { class: "groups", role: "group", "aria-label": "Groups of rows" });
  const state = { at: Math.max(0, groups.findIndex(({ name }) => name === settings.get("group"))), named: settings.has("group"), feature };
  const show = (at) => showGroup({ groups, contexts, buttons, state, most: found.act_max }, Math.max(0, Math.min(at, groups.length - 1)));
  // From where the address is by now: who presses a key fast need not wait for what lies between.
  const step = (by) => { location.hash = linkToFeature(neighbour(app, parseRoute(location.hash).feature ?? feature, by, about.features)); };
  const names = el("div", { class: "names" });
  const view = {
    title: `Feature ${feature}`,
    node: el("div", { class: "page" }, titleOf(found, step), el("div", { class: "tiles" }, tilesOf(found)),
      el("div", { class: "feature" },
        el("section", { class: "card", "aria-label": "Rows" }, buttons, contexts),
        el("div", null, besides(found, about), names))),
    keys: { "[": () => show(state.at - 1), "]": () => show(state.at + 1), n: () => step(1), p: () => step(-1) },
  };
  const relate = (table) => replace(names, related(found, about, table));
  show(state.at);
  relate(null);
  if (found.neighbours.length || found.coactive.length) app.table().then(relate, () => null); // labels follow
  return view;
}

export function groupName(title) {
  return title === "Top activations" ? "top" : title.toLowerCase().replace(" ", "-");
}

function showGroup(shown, at) {
  const { groups, contexts, buttons, state, most } = shown;
  state.at = at;
  state.named ||= at > 0;
  if (state.named) keepSettings(`feature/${state.feature}`, { group: groups[at].name });
  const focused = buttons.contains(document.activeElement);
  replace(buttons, groups.flatMap((group, i) => groupButton(group, i, shown)));
  if (focused) buttons.querySelector("[aria-pressed=true]").focus();
  replace(contexts, contextList(groups[at].examples, most));
}

function groupButton({ quantile_name: title, examples, name }, i, shown) {
  const here = i === shown.state.at;
  const button = el("button", {
    type: "button", "aria-pressed": String(here), "aria-label": title, "data-group": name,
    disabled: examples.length === 0 && !here, click: () => showGroup(shown, i),
  }, SHORT[name] ?? title.replace("Decile ", ""));
  return name === "decile-10" ? [el("span", { "aria-hidden": "true" }, "Deciles"), button] : [button];
}

// The next feature of the table as it was shown last, else of those that this file holds, else by number.
function neighbour(app, feature, by, features) {
  const order = [app.order, app.source.features].find((one) => one?.includes(feature));
  return order ? order[(order.indexOf(feature) + by + order.length) % order.length] : (feature + by + features) % features;
}

function titleOf(found, step) {
  const { index, label, kind, flags, purity } = found;
  return el("div", { class: "title" }, el("h1", null, `Feature ${index}`, label ? `: ${visible(label)}` : ""),
    el("div", null, kind ? el("span", { class: "flag kind" }, kind) : null, flagChips(flags),
      purity === null || purity === undefined ? null : el("span", { class: "soft" }, `purity ${percent(purity)}`)),
    el("div", { class: "steps" },
      el("button", { type: "button", click: () => step(-1), "aria-label": "Previous feature" }, "← previous"),
      el("button", { type: "button", click: () => step(1), "aria-label": "Next feature" }, "next →")));
}

function tilesOf({ act_max: most, mean, mean_active: active, std_active: spread, activation_frequency: frequency, count: rows }) {
  const known = [
    [number(most, 4), "max activation"], [percent(frequency), "of tokens"], [count(rows), "active tokens"],
    [number(active), "mean if active"], [number(spread), "deviation then"], [number(mean), "mean over all"],
  ];
  return known.map(([value, name]) => el("div", null, el("b", null, value), el("span", null, name)));
}

function besides(found, about) {
  return [spread(found), logits(found, about), populations(found), places(found, about)];
}

function spread({ log_histogram: { first, counts } }) {
  if (counts.length === 0) return null;
  const edges = Array.from({ length: counts.length + 1 }, (_, i) => Math.log2(edgeOf(first + i)));
  return histogram("Activations", edges, counts, { label: "activation", shown: (log) => number(2 ** log) });
}

// How often it is active at each place of a context: bin b counts places 2^b - 1 to 2^(b + 1) - 2.
function places({ positions: active }, { rows, context }) {
  const used = active.filter((_, bin) => 2 ** bin - 1 < context).length;
  if (used < 2 || active.every((one) => one === 0)) return null;
  const edges = Array.from({ length: used + 1 }, (_, bin) => bin);
  const width = (bin) => Math.min(2 ** (bin + 1) - 1, context) - (2 ** bin - 1);
  const share = active.slice(0, used).map((one, bin) => Math.min(1, one / ((rows / context) * width(bin))));
  const place = (bin) => String(2 ** bin - 1);
  return histogram("By place in the context", edges, share, { label: "place, from 0", shown: place, counted: percent });
}

// Where a bin of half an octave begins.
function edgeOf(bin) {
  return 2 ** (Math.floor(bin / 2) - 16) * (bin % 2 ? 1.5 : 1);
}

function logits({ top_logits: high, top_values: raised, bottom_logits: low, bottom_values: lowered }, { answers, no_head: reason }) {
  const side = (title, tokens, values) => el("div", null, el("h3", null, title), tokens.map((token, i) => el("p", null,
    el("span", { class: "chip", title: visibleToken(token) }, visibleToken(token)), el("span", { class: "soft" }, number(values[i])))));
  const why = answers ? reason || "This feature has none." : "They were not made yet.";
  return card("Logits", "what it writes", high.length + low.length === 0 ? el("p", { class: "soft" }, why)
    : el("div", { class: "logits" }, side("raised most", high, raised), side("lowered most", low, lowered)));
}

function populations({ populations: found }) {
  if (found.length === 0) return null;
  const rows = found.map(([name, rows_, active, mean]) => el("tr", null, el("td", { class: "wide" }, visible(name)),
    el("td", null, percent(active / Math.max(rows_, 1))), el("td", null, number(mean))));
  const heads = ["corpus", "frequency", "mean active"].map((title) => el("th", { scope: "col" }, title));
  return card("Where it is active", "", el("table", null, el("tr", null, heads), rows));
}

function related({ neighbours, coactive }, { answers }, table) {
  const why = el("p", { class: "soft" }, answers ? "None is known." : "They were not made yet.");
  const list = (rows, numbers) => (rows.length === 0 ? why.cloneNode(true) : el("ul", { class: "related" }, rows.map((row) => el("li", null,
    el("a", { href: linkToFeature(row[0]) }, String(row[0])), el("span", { class: "name" }, nameOf(table, row[0])), numbers(row)))));
  return [
    card("Neighbours", "cosine of decoder directions", list(neighbours, ([, cosine]) => [el("span", null, number(cosine)), el("span")])),
    card("Active together", "Jaccard, NPMI", list(coactive, ([, jaccard, npmi]) => [el("span", null, number(jaccard)), el("span", { class: "soft" }, number(npmi, 2))])),
  ];
}

function nameOf(table, feature) {
  const place = table?.place(feature);
  if (place === undefined) return "";
  return visible(table.label(place)) || table.tokens[place].slice(0, 2).map(visibleToken).join(" ");
}

function card(title, small, ...content) {
  return el("section", { class: "card" }, el("h2", null, title, small ? el("small", null, small) : null), content);
}

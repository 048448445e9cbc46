// The first view: which run, SAE and data this is, how good the SAE is, and how its features are spread.

import { curveChart, histogram } from "./charts.js";
import { el } from "./dom.js";
import { linkTo } from "./routes.js";
import { count, number, percent } from "./text.js";

const LEAST_BARS = 9;

export async function overviewView({ source }) {
  const about = await source.overview();
  const charts = [...curves(about), ...spreads(about)].filter((chart) => chart !== null);
  return {
    title: "Overview",
    node: el("div", { class: "page" },
      el("h1", null, about.sae),
      el("p", { class: "soft" }, `${about.run ? `Run ${about.run}, layer` : "Layer"} ${about.layer}: ${count(about.features)} features over ${count(about.rows)} tokens`),
      el("div", { class: "tiles" }, tiles(about).map(([value, name]) => el("div", null, el("b", null, value), el("span", null, name)))),
      about.missing.length ? el("div", { class: "notice" }, "Not shown: ", about.missing.map((one) => el("div", null, one))) : null,
      el("div", { class: "grid charts" }, charts),
      el("div", { class: "grid" }, kinds(about), corpora(about), hashes(about)), settings(about)),
  };
}

function tiles({ numbers, features, alive, rows, flagged_rows: flagged }) {
  const known = [
    [count(alive), "features active"],
    [percent((features - alive) / features), "never active"],
    [number(numbers.l0, 4), "L0, features a token"],
    [number(numbers.fvu, 4), "FVU, validation"],
    [number(numbers.val_loss, 4), "loss, validation"],
    [number(numbers.ce_recovered, 4), "CE loss recovered"],
    [count(rows), "tokens"],
    [count(flagged), "flagged, left out"],
  ];
  return known.filter(([value]) => value !== "–");
}

function curves({ curves: found }) {
  const loss = found.loss && curveChart("Loss", found.loss, { log: true });
  const l0 = found.l0 && curveChart("L0", found.l0);
  return [loss, l0];
}

function spreads({ curves: found }) {
  const l0 = found.l0_rows && histogram("Tokens by L0", ...withRoom(found.l0_rows), { label: "active features" });
  const power = (log) => percent(10 ** log);
  const density = found.density && histogram("Features by density", found.density.edges, found.density.counts, {
    label: "share of tokens on which a feature is active", shown: power,
  });
  return [l0, density];
}

// Empty bars beside the others where these are few: of TopK all tokens have the same L0.
function withRoom({ edges, counts }) {
  const more = Math.max(0, Math.ceil((LEAST_BARS - counts.length) / 2));
  const before = Array.from({ length: Math.min(more, edges[0]) }, (_, i) => edges[0] - Math.min(more, edges[0]) + i);
  const after = Array.from({ length: more }, (_, i) => edges.at(-1) + 1 + i);
  return [[...before, ...edges, ...after], [...before.map(() => 0), ...counts, ...after.map(() => 0)]];
}

function kinds({ kinds: found, features }) {
  if (found.length === 0) return null;
  const rows = found.map(([kind, size]) => el("tr", null,
    el("td", null, el("a", { href: linkTo("features", { kind, dead: kind === "dead" ? 1 : null }) }, kind)),
    el("td", null, count(size)), el("td", null, percent(size / features))));
  return card("What features are about", el("table", null, el("tr", null, ["kind", "features", ""].map(head)), rows));
}

function hashes({ hashes: found }) {
  return card("What this was made from", el("dl", null, found.map(([name, value]) => [el("dt", null, name), el("dd", { class: "hash" }, value)])));
}

function corpora({ corpora: found }) {
  const rows = found.map((one) => el("tr", null, el("td", null, one.name), el("td", null, count(one.documents)), el("td", null, count(one.tokens))));
  return card("Corpora", el("div", { class: "scroll" }, el("table", null, el("tr", null, ["corpus", "documents", "tokens"].map(head)), rows)));
}

function settings({ settings: found }) {
  if (found.length === 0) return null;
  return card("Settings of the SAE", el("dl", { class: "wide" }, found.map(([name, value]) => el("div", null, el("dt", null, name), el("dd", null, value)))));
}

function head(title) {
  return el("th", { scope: "col" }, title);
}

function card(title, ...content) {
  return el("section", { class: "card" }, el("h2", null, title), content);
}

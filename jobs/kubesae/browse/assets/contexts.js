// Rows on which a feature is active: each token coloured by the activation on it, which pointing at it shows.

import { el } from "./dom.js";
import { count, number, pieces, visible, visibleToken } from "./text.js";

const FAINTEST = 0.12;
const STRONGEST = 0.9;

export function contextList(examples, most) {
  if (examples.length === 0) return el("p", { class: "soft" }, "No rows are stored of this group.");
  return el("div", null, examples.map((example) => contextOf(example, most)));
}

function contextOf(example, most) {
  const at = example.train_token_ind;
  const found = pieces(example.tokens, example.tokens_acts_list);
  return el("div", { class: example.is_repeated_datapoint ? "context repeated" : "context" },
    el("div", { class: "text", dir: "auto" }, found.map((piece) => tokenOf(piece, at, most))),
    el("div", { class: "where" }, el("span", { class: "value" }, number(example.tokens_acts_list[at], 4)), origin(example)));
}

function tokenOf({ text, value, first, last }, at, most) {
  const here = first <= at && at <= last;
  const shown = signed(text);
  if (!(value > 0)) return el("span", { class: here ? "token here" : "token", "data-tip": `${visibleToken(text)}  0` }, shown);
  const share = FAINTEST + (STRONGEST - FAINTEST) * Math.min(1, value / most);
  const properties = { "data-value": value, "data-tip": `${visibleToken(text)}  ${number(value, 4)}`, "--share": share.toFixed(3) };
  return el("span", { class: here ? "token here" : "token", ...properties }, shown);
}

// Signs for what would not be seen stand back from what the text holds itself.
function signed(text) {
  const shown = visible(text);
  return shown === text ? text : el("span", { class: "blank" }, shown);
}

function origin({ document, corpus, offset, row, is_repeated_datapoint: repeated }) {
  const from = document === null ? "no document" : `${visible(document)} · ${visible(corpus)} · token ${count(offset)}`;
  return `${from} · row ${count(row)}${repeated ? " · shown before" : ""}`;
}

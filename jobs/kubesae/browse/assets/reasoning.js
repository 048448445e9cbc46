// Which pages `kubesae reason` wrote about this SAE.

import { el } from "./dom.js";
import { count, visible } from "./text.js";

const PATH = /^reason\/[\w.-]+(\/[\w.-]+)*\/index\.html$/;
const TO_PREFIX = "../../"; // this page is interpret/<sae>/index.html

export async function reasoningView({ source }) {
  const found = await source.reasoning();
  return { title: "Reasoning", node: el("div", { class: "page" }, el("h1", null, "Reasoning"), content(found)) };
}

function content(found) {
  if (found === null) return el("p", { class: "notice" }, "A page in one file has no others beside it. Open the page in the bucket, or `kubesae page`.");
  if (found.length === 0) return el("p", { class: "notice" }, "Nothing yet: `kubesae reason` follows features through the answers to problems and writes pages that are listed here.");
  return el("ul", null, found.map(entry));
}

function entry({ name, title, path, problems, correct, survived }) {
  const text = visible(String(title || name));
  const link = PATH.test(path ?? "") && !path.includes("..") ? el("a", { href: TO_PREFIX + path }, text) : el("span", null, text);
  const known = [
    Number.isFinite(correct) && Number.isFinite(problems) ? `${count(correct)} of ${count(problems)} answers right` : null,
    Number.isFinite(survived) ? `${count(survived)} features survived every test` : null,
  ].filter((one) => one !== null);
  return el("li", null, link, known.length ? el("span", { class: "soft" }, ` · ${known.join(" · ")}`) : null);
}

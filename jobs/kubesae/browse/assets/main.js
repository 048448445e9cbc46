// The page: which view is shown, the search, the keys.

import { compareView } from "./compare.js";
import { el, hideTip, replace, watchTips } from "./dom.js";
import { featureView } from "./feature.js";
import { featuresView } from "./features.js";
import { openTable } from "./features_data.js";
import { toggleHelp } from "./help.js";
import { overviewView } from "./overview.js";
import { reasoningView } from "./reasoning.js";
import { linkTo, linkToFeature, parseRoute } from "./routes.js";
import { openSource } from "./source.js";
import { startTheme } from "./theme.js";

const VIEWS = { overview: overviewView, features: featuresView, feature: featureView, compare: compareView, reasoning: reasoningView };
const TYPING_PAUSE = 120; // milliseconds

const byId = (id) => document.getElementById(id);
const parts = { main: byId("view"), query: byId("query"), help: byId("help"), tip: byId("tip") };
const app = openApp();
let shown = { keys: {} };
let asked = 0;

function openApp() {
  const source = openSource(byId("embedded")?.textContent);
  let opening = null;
  const table = () => (opening ??= source.table().then(openTable).catch((error) => {
    opening = null;
    throw error;
  }));
  return { source, table, tip: parts.tip, order: source.features ?? null };
}

async function render() {
  const mine = (asked += 1);
  const route = parseRoute(location.hash);
  hideTip(parts.tip);
  parts.main.setAttribute("aria-busy", "true");
  const [view, about] = await Promise.all([viewOf(route).catch(failed), app.source.overview().catch(() => null)]);
  if (mine !== asked) return; // somebody went on meanwhile
  shown = Object.assign(view, { route, keys: view.keys ?? {} }); // a view may change its keys, and what recolours it
  replace(parts.main, view.node);
  parts.main.setAttribute("aria-busy", "false");
  parts.main.scrollTop = 0;
  if (about) byId("brand").textContent = about.sae;
  document.title = [view.title, about?.sae].filter(Boolean).join(" · ");
  mark(route);
  if (document.activeElement !== parts.query) (view.node.querySelector("[role=grid]") ?? parts.main).focus({ preventScroll: true });
  if (route.view === "feature" && !view.failed) performance.mark("feature-shown");
}

async function viewOf(route) {
  if (route.view === "feature" && route.feature === null) throw new Error("Which feature? A link to one ends with its number, as in #/feature/12.");
  if (!Object.hasOwn(VIEWS, route.view)) throw new Error(`There is no view ${route.view}.`);
  return VIEWS[route.view](app, route);
}

function failed(error) {
  return { title: "Not shown", failed: true, node: el("div", { class: "page" }, el("h1", null, "This cannot be shown"),
    el("p", { class: "notice", role: "alert" }, error.message), el("p", null, el("a", { href: linkTo("overview") }, "To the overview"))) };
}

function mark(route) {
  for (const link of document.querySelectorAll("nav a")) {
    const here = link.dataset.view === (route.view === "feature" ? "features" : route.view);
    if (here) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (document.activeElement !== parts.query) parts.query.value = route.settings.get("q") ?? "";
}

function search() {
  if (shown.route?.view === "features" && shown.search) return shown.search(parts.query.value);
  location.hash = linkTo("features", { q: parts.query.value });
}

function watchSearch() {
  let waiting = null;
  parts.query.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(search, TYPING_PAUSE);
  });
  byId("search").addEventListener("submit", (event) => {
    event.preventDefault();
    clearTimeout(waiting);
    if (/^#?\d+$/.test(parts.query.value.trim())) {
      location.hash = linkToFeature(Number(parts.query.value.trim().replace("#", "")));
    } else search();
    parts.main.querySelector("[role=grid]")?.focus();
  });
}

function back() {
  if (parts.help.open) return parts.help.close();
  if (document.activeElement === parts.query) return parts.query.blur();
  if (shown.route?.view === "overview") return undefined;
  if (app.from) location.hash = app.from;
  else location.hash = linkTo(shown.route?.view === "feature" ? "features" : "overview");
  return undefined;
}

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  if (event.key === "Escape") return back();
  if (parts.help.open || event.target.closest("input, select, textarea")) return;
  if (event.key === "Enter" && event.target.closest("a, button")) return;
  const always = { "/": () => parts.query.select(), "?": () => toggleHelp(parts.help), d: toggleTheme };
  const does = always[event.key] ?? shown.keys[event.key];
  if (!does) return;
  event.preventDefault();
  does();
}

// A feature is left for the list that it was opened from.
function left(event) {
  const before = parseRoute(new URL(event.oldURL).hash);
  const now = parseRoute(location.hash);
  if (now.view === "feature" && before.view !== "feature") app.from = new URL(event.oldURL).hash;
  else if (now.view !== "feature") app.from = null;
  render();
}

const toggleTheme = startTheme(() => shown.recolour?.());
byId("theme").addEventListener("click", toggleTheme);
byId("help-button").addEventListener("click", () => toggleHelp(parts.help));
addEventListener("keydown", pressed);
addEventListener("hashchange", left);
watchTips(document.body, parts.tip);
watchSearch();
render();

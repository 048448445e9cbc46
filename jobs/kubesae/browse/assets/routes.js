// What the part after # says: a view, of a feature its number, and settings. Every view can be linked to.

const FIRST = "overview";

export function parseRoute(hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  const [view, number] = path.split("/");
  return { view: view || FIRST, feature: /^\d+$/.test(number ?? "") ? Number(number) : null, settings: new URLSearchParams(query) };
}

export function linkTo(view, settings = {}) {
  const given = Object.entries(settings).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const query = new URLSearchParams(given).toString();
  return `#/${view === FIRST ? "" : view}${query ? `?${query}` : ""}`;
}

export function linkToFeature(feature, settings) {
  return linkTo(`feature/${feature}`, settings);
}

// Change the settings of a view while the address is its own: a link keeps them, the way back does not stop at each.
export function keepSettings(view, settings) {
  const now = parseRoute(location.hash);
  const here = now.feature === null ? now.view : `${now.view}/${now.feature}`;
  if (here === view) history.replaceState(null, "", linkTo(view, settings));
}

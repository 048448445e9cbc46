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

// Change the settings of the view that is shown: a link keeps them, the way back does not stop at each.
export function keepSettings(settings) {
  const { view, feature } = parseRoute(location.hash);
  history.replaceState(null, "", linkTo(feature === null ? view : `${view}/${feature}`, settings));
}

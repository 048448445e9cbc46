// The table of all features: what can be shown, sorted and searched for, by place in the table (not by feature).

export const DENSE = 1;
export const SINGLE_TOKEN = 2;
export const POSITIONAL = 4;
export const DEAD = 8;
export const FLAG_NAMES = [[DEAD, "dead"], [DENSE, "dense"], [SINGLE_TOKEN, "single token"], [POSITIONAL, "positional"]];

export function flagsOf(bits) {
  return FLAG_NAMES.filter(([bit]) => bits & bit).map(([, name]) => name);
}

export function openTable(columns) {
  const size = columns.count.length;
  const place = columns.features && new Map(columns.features.map((feature, i) => [feature, i]));
  const words = []; // what is searched, made when it is first needed
  return {
    size,
    ...columns,
    feature: (i) => (columns.features ? columns.features[i] : i),
    place: (feature) => (place ? place.get(feature) : feature < size ? feature : undefined),
    frequency: (i) => columns.count[i] / Math.max(columns.rows, 1),
    label: (i) => columns.label?.[i] ?? "",
    kind: (i) => columns.kind?.[i] ?? "",
    purity: (i) => columns.purity?.[i] ?? null,
    words: (i) => (words[i] ??= `${columns.label?.[i] ?? ""}\n${columns.tokens[i].join("\n")}`.toLowerCase()),
    kinds: [...new Set(columns.kind ?? [])].sort(),
  };
}

// Places of the features that a search finds: by number, or by a part of a label or of a token.
export function found(table, { query = "", kind = "", dead = false } = {}) {
  const wanted = query.toLowerCase();
  const wantedFeature = /^#?\d+$/.test(query.trim()) ? Number(query.trim().replace("#", "")) : null;
  const places = [];
  for (let i = 0; i < table.size; i += 1) {
    if (!dead && table.flags[i] & DEAD && table.feature(i) !== wantedFeature) continue;
    if (kind && table.kind(i) !== kind) continue;
    if (wanted && table.feature(i) !== wantedFeature && !table.words(i).includes(wanted)) continue;
    places.push(i);
  }
  return places;
}

// The same places in another order; what has no value comes last, of what is equal the more frequent comes first.
export function sorted(table, places, value, descending) {
  const keys = new Map(places.map((i) => [i, value(i)]));
  const sign = descending ? -1 : 1;
  const none = (key) => key === null || key === undefined || key === "" || Number.isNaN(key);
  return places.toSorted((a, b) => {
    const [x, y] = [keys.get(a), keys.get(b)];
    if (none(x) || none(y)) return none(x) - none(y) || a - b;
    return (x < y ? -sign : x > y ? sign : 0) || table.count[b] - table.count[a] || a - b;
  });
}

// Where the data come from: files beside the page, features by range; or what is embedded in the page itself.

const LENGTH_BYTES = 4;
const KEPT = 100;

export function openSource(embedded) {
  return embedded ? embeddedSource(JSON.parse(embedded)) : storedSource();
}

function storedSource() {
  const whole = new Map(); // of servers that know no ranges
  const kept = new Map(); // features that were shown last
  const overview = once(() => json("page/overview.json"));
  const index = once(async () => {
    const [found, about] = await Promise.all([gzipJson("features/index.json.gz"), overview()]);
    const [only] = Object.values(found);
    requireSame(only.filename === about.file);
    return only;
  });
  return {
    overview,
    table: once(async () => {
      const [found, about] = await Promise.all([gzipJson("page/table.json.gz"), overview()]);
      requireSame(found.made_from === about.made_from);
      return found;
    }),
    reasoning: once(() => json("page/reasoning.json")),
    feature: async (feature) => {
      if (!kept.has(feature)) kept.set(feature, await unpacked(await stored(await index(), feature, whole)));
      if (kept.size > KEPT) kept.delete(kept.keys().next().value);
      return kept.get(feature);
    },
  };
}

// Files of a page are read when they are wanted: what is read now may be of a later page than what was read before.
function requireSame(is) {
  if (!is) throw new Error("This page was written anew while it was open. Reload it.");
}

function embeddedSource({ overview, table, features }) {
  return {
    features: table.features,
    overview: async () => overview,
    table: async () => table,
    reasoning: async () => null,
    feature: async (feature) => {
      if (!(feature in features)) throw new Error(`Feature ${feature} is not in this file, which holds ${table.features.length} features.`);
      return unpacked(Uint8Array.from(atob(features[feature]), (character) => character.charCodeAt(0)));
    },
  };
}

// What was read once is not asked for again; what failed is.
function once(read) {
  let reading = null;
  return () => (reading ??= read().catch((error) => {
    reading = null;
    throw error;
  }));
}

async function stored(index, feature, whole) {
  const { filename, offsets } = index;
  if (!(feature >= 0 && feature + 1 < offsets.length)) {
    throw new Error(`There is no feature ${feature}: features are 0 to ${offsets.length - 2}.`);
  }
  return range(`features/${filename}`, offsets[feature], offsets[feature + 1], whole);
}

async function range(path, start, stop, whole) {
  if (!whole.has(path)) {
    const answer = await asked(path, { headers: { Range: `bytes=${start}-${stop - 1}` } });
    const bytes = new Uint8Array(await answer.arrayBuffer());
    if (answer.status === 206) return bytes;
    whole.set(path, bytes);
  }
  return whole.get(path).subarray(start, stop);
}

async function json(path) {
  return (await asked(path, { cache: "no-cache" })).json();
}

async function gzipJson(path) {
  const bytes = new Uint8Array(await (await asked(path, { cache: "no-cache" })).arrayBuffer());
  const zipped = bytes[0] === 0x1f && bytes[1] === 0x8b; // some servers unpack what is called .gz
  return zipped ? inflated(bytes, "gzip") : JSON.parse(new TextDecoder().decode(bytes));
}

async function asked(path, how) {
  if (location.protocol === "file:") {
    throw new Error("A browser lets no file read the files beside it. Open this page by `kubesae page`, or make one file of it with --single-file.");
  }
  const answer = await fetch(path, how);
  if (answer.ok) return answer;
  const private_ = answer.status === 401 || answer.status === 403;
  const way = private_ ? " Of a private bucket `kubesae page` shows it, with your credentials." : " The page was written anew, or removed: reload it. If that does not help, `kubesae interpret` writes it.";
  throw new Error(`${path}: the server answered ${answer.status} ${answer.statusText}`.trim() + `.${way}`);
}

async function unpacked(bytes) {
  const length = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
  return inflated(bytes.subarray(LENGTH_BYTES, LENGTH_BYTES + length), "deflate");
}

async function inflated(bytes, format) {
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream(format))).json();
}

// How text of tokens and numbers are shown: everything that would not be seen gets a sign of its own.

const SIGNS = { "\n": "⏎", "\r": "␍", "\t": "⇥" };
// Controls, characters that reverse the direction of writing or take no room, halves of pairs, private ones.
const UNSEEN = /[\p{Cc}\p{Cf}\p{Co}\p{Cs}\u2028\u2029]/gu;
const OTHER_SPACES = /[^ \P{Zs}]/gu;
const ESCAPED = /\\x([0-9a-f]{2})/g;
const MOST_PIECES = 5;

export function visible(text) {
  return text.replace(UNSEEN, (character) => SIGNS[character] ?? escaped(character));
}

function escaped(character) {
  return `\\u{${character.codePointAt(0).toString(16)}}`;
}

// A token by itself: spaces at its ends would not be seen.
export function visibleToken(text) {
  const spaced = visible(text).replace(OTHER_SPACES, escaped).replace(/^ +| +$/g, (spaces) => "␣".repeat(spaces.length));
  return spaced === "" ? "∅" : spaced;
}

export function number(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e6)) return value.toExponential(digits - 1);
  return String(Number(value.toPrecision(digits)));
}

export function count(value) {
  return value.toLocaleString("en-US");
}

export function percent(value, digits = 3) {
  const shown = Number((value * 100).toPrecision(digits));
  return shown > 0 && shown < 1e-5 ? `${shown.toExponential(0)}%` : `${shown}%`;
}

// Bytes that are no whole character come as \xe2, a token each or several. Those that make a character together become
// one piece with the largest value: [{text, value, first, last}], first and last being the tokens that are in it.
export function pieces(tokens, values) {
  const found = [];
  for (let i = 0; i < tokens.length; i += 1) {
    const piece = joined(tokens, values, i) ?? { text: tokens[i], value: values[i], first: i, last: i };
    found.push(piece);
    i = piece.last;
  }
  return found;
}

function joined(tokens, values, first) {
  if (!tokens[first].match(ESCAPED)) return null;
  for (let last = first + 1; last < Math.min(tokens.length, first + MOST_PIECES); last += 1) {
    const text = decoded(tokens.slice(first, last + 1).join(""));
    if (text !== null) return { text, value: Math.max(...values.slice(first, last + 1)), first, last };
  }
  return null;
}

function decoded(escaped) {
  const bytes = [];
  let rest = 0;
  const encoder = new TextEncoder();
  for (const match of escaped.matchAll(ESCAPED)) {
    bytes.push(...encoder.encode(escaped.slice(rest, match.index)), parseInt(match[1], 16));
    rest = match.index + match[0].length;
  }
  bytes.push(...encoder.encode(escaped.slice(rest)));
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(new Uint8Array(bytes));
  } catch {
    return null;
  }
}

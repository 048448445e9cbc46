// Small plots as SVG: histograms and curves, with round ticks. A bar says what it counts when it is pointed at.

import { el, svg } from "./dom.js";
import { count, number } from "./text.js";

const WIDTH = 340;
const HEIGHT = 180;
const LEFT = 44;
const RIGHT = 22;
const TOP = 8;
const BOTTOM = 36;
const TICKS = 4;

// edges: one more than counts; shown: how the end of a bin is written.
export function histogram(title, edges, counts, { label = "", shown = number, counted = count } = {}) {
  const [low, high] = [edges[0], edges.at(-1)];
  const x = scale(low, high, LEFT, WIDTH - RIGHT);
  const most = Math.max(...counts);
  const ticks = roundTicks(0, most || 1);
  const y = scale(0, Math.max(most, ticks.at(-1)), HEIGHT - BOTTOM, TOP);
  const bars = counts.map((value, i) => svg("rect", {
    class: "bar", x: x(edges[i]), y: y(value), width: Math.max(x(edges[i + 1]) - x(edges[i]) - 1, 0.5), height: y(0) - y(value),
    "data-tip": `${shown(edges[i])} to ${shown(edges[i + 1])}: ${counted(value)}`,
  }));
  const marks = roundTicks(low, high).filter((tick) => tick >= low && tick <= high);
  const axis = marks.map((tick) => below(x(tick), shown(tick)));
  return figure(title, plot(title, yAxis(y, ticks, counted), axis, bars, axisLabel(label)));
}

// curves: {train: [[x, y]...], validation: [[x, y]...]}, either may be empty.
export function curveChart(title, curves, { log = false } = {}) {
  const named = Object.entries(curves).map(([name, points]) => [name, points.filter(([, value]) => value !== null && (!log || value > 0))]);
  const points = named.flatMap(([, own]) => own);
  if (points.length === 0) return null;
  const place = log ? Math.log10 : (value) => value;
  const values = points.map(([, value]) => place(value));
  const ticks = log ? logTicks(...ends(values)) : roundTicks(...ends([0, ...values]));
  const x = scale(...ends([0, ...points.map(([step]) => step)]), LEFT, WIDTH - RIGHT);
  const linear = scale(...ends([...values, ...ticks.map(place)]), HEIGHT - BOTTOM, TOP);
  const y = (value) => linear(place(value));
  const lines = named.flatMap(([name, own]) => curve(name, own, x, y));
  const axis = roundTicks(0, x.high).filter((tick) => tick <= x.high).map((tick) => below(x(tick), brief(tick)));
  const keys = named.filter(([, own]) => own.length).map(([name]) => el("span", { class: `key ${name}` }, name));
  return figure(title, plot(title, yAxis(y, ticks, brief), axis, lines, axisLabel("step")), keys);
}

function curve(name, points, x, y) {
  const line = svg("polyline", { class: name, points: points.map(([step, value]) => `${x(step).toFixed(1)},${y(value).toFixed(1)}`).join(" ") });
  if (name === "train") return [line];
  const dots = points.map(([step, value]) => svg("circle", {
    class: name, cx: x(step), cy: y(value), r: 3.5, "data-tip": `step ${count(step)}: ${number(value, 4)}`,
  }));
  return [line, ...dots];
}

function figure(title, drawing, keys = []) {
  return el("section", { class: "card" }, el("h2", null, title, keys.length ? el("small", null, keys) : null), drawing);
}

function plot(title, ...content) {
  return svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": title }, content);
}

function yAxis(y, ticks, shown) {
  return ticks.flatMap((tick) => [
    svg("line", { class: "rule", x1: LEFT, x2: WIDTH - RIGHT, y1: y(tick), y2: y(tick) }),
    svg("text", { x: LEFT - 6, y: y(tick) + 4, "text-anchor": "end" }, shown(tick)),
  ]);
}

function below(x, text) {
  return svg("text", { x, y: HEIGHT - BOTTOM + 15, "text-anchor": "middle" }, text);
}

function axisLabel(text) {
  return svg("text", { x: WIDTH - RIGHT, y: HEIGHT - 5, "text-anchor": "end" }, text);
}

export function scale(low, high, from, to) {
  const span = high - low || 1;
  const place = (value) => from + ((value - low) / span) * (to - from);
  return Object.assign(place, { low, high });
}

export function roundTicks(low, high) {
  const span = high - low || Math.abs(high) || 1;
  const power = 10 ** Math.floor(Math.log10(span / TICKS));
  const step = power * [1, 2, 5, 10].find((factor) => span / (power * factor) <= TICKS);
  const first = Math.ceil(low / step - 1e-9);
  const ticks = [];
  for (let i = first; i * step <= high + step * 1e-6; i += 1) ticks.push(Number((i * step).toPrecision(12)));
  return ticks.length ? ticks : [low];
}

// Powers of ten between two logarithms, with 2 and 5 of each where there are few.
export function logTicks(low, high) {
  const factors = high - low > 2 ? [1] : [1, 2, 5];
  const ticks = [];
  for (let power = Math.floor(low); power <= Math.ceil(high); power += 1) {
    ticks.push(...factors.map((factor) => factor * 10 ** power).filter((tick) => Math.log10(tick) >= low - 0.05 && Math.log10(tick) <= high + 0.05));
  }
  return ticks.length > 1 ? ticks : [10 ** low, 10 ** high];
}

function ends(values) {
  return [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))];
}

function brief(value) {
  if (Math.abs(value) >= 1e6) return `${number(value / 1e6)}M`;
  return Math.abs(value) >= 1e4 ? `${number(value / 1e3)}k` : number(value);
}

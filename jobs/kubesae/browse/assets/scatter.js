// Features by their frequency in two populations, both on logarithmic axes. As many points as there are features: so on
// a canvas, and the table beside it has the same numbers for those who cannot see it.

import { logTicks } from "./charts.js";
import { hideTip, showTip } from "./dom.js";
import { percent } from "./text.js";

const LEFT = 58;
const BOTTOM = 44;
const TOP = 12;
const RIGHT = 24;
const NEAR = 12;

// points: [{x, y, place}], frequencies; one that is 0 lies on the edge. Returns what draws.
export function scatter(canvas, { points, names, tip, text, open }) {
  const state = { spots: [] };
  const least = lowest(points);
  const draw = () => { state.spots = drawAll(canvas, points, names, least); };
  const nearest = (event) => nearestSpot(state.spots, event.offsetX, event.offsetY);
  canvas.addEventListener("pointermove", (event) => {
    const spot = nearest(event);
    if (spot) showTip(tip, canvas, event, text(spot.place));
    else hideTip(tip);
  });
  canvas.addEventListener("pointerleave", () => hideTip(tip));
  canvas.addEventListener("click", (event) => {
    const spot = nearest(event);
    if (spot) open(spot.place);
  });
  new ResizeObserver(draw).observe(canvas);
  return draw;
}

function lowest(points) {
  return points.reduce((low, { x, y }) => Math.min(low, x || low, y || low), 1) / 2;
}

function drawAll(canvas, points, names, least) {
  const { clientWidth: width, clientHeight: height } = canvas;
  const ratio = window.devicePixelRatio || 1;
  Object.assign(canvas, { width: width * ratio, height: height * ratio });
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  const low = Math.log10(least);
  const place = (value) => (Math.log10(Math.max(value, least)) - low) / -low;
  const x = (value) => LEFT + place(value) * (width - LEFT - RIGHT);
  const y = (value) => height - BOTTOM - place(value) * (height - BOTTOM - TOP);
  const colour = (name) => getComputedStyle(canvas).getPropertyValue(name);
  drawAxes(pen, { x, y, low, width, height, names, colour });
  pen.fillStyle = colour("--train");
  pen.globalAlpha = points.length > 5000 ? 0.35 : 0.6;
  const spots = points.map((point) => ({ x: x(point.x), y: y(point.y), place: point.place }));
  for (const spot of spots) pen.fillRect(spot.x - 1.5, spot.y - 1.5, 3, 3);
  pen.globalAlpha = 0.6;
  pen.strokeStyle = colour("--text");
  pen.setLineDash([5, 5]);
  line(pen, x(least), y(least), x(1), y(1)); // as often in both
  return spots;
}

function drawAxes(pen, { x, y, low, width, height, names, colour }) {
  pen.font = "12px system-ui, sans-serif";
  pen.strokeStyle = colour("--line");
  pen.fillStyle = colour("--quiet");
  for (const tick of logTicks(low, 0)) {
    line(pen, x(tick), TOP, x(tick), height - BOTTOM);
    line(pen, LEFT, y(tick), width - RIGHT, y(tick));
    write(pen, percent(tick), x(tick), height - BOTTOM + 15, "center");
    write(pen, percent(tick), LEFT - 6, y(tick) + 4, "right");
  }
  write(pen, `frequency in ${names[0]}`, width - RIGHT, height - 6, "right");
  pen.save();
  pen.translate(13, TOP);
  pen.rotate(-Math.PI / 2);
  write(pen, `frequency in ${names[1]}`, 0, 0, "right");
  pen.restore();
}

function line(pen, x1, y1, x2, y2) {
  pen.beginPath();
  pen.moveTo(x1, y1);
  pen.lineTo(x2, y2);
  pen.stroke();
}

function write(pen, text, x, y, align) {
  pen.textAlign = align;
  pen.fillText(text, x, y);
}

function nearestSpot(spots, x, y) {
  let [best, distance] = [null, NEAR * NEAR];
  for (const spot of spots) {
    const apart = (spot.x - x) ** 2 + (spot.y - y) ** 2;
    if (apart < distance) [best, distance] = [spot, apart];
  }
  return best;
}

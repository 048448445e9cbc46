// A table of any length: only the rows that are in sight are elements. Its head sorts, its rows open.

import { el, replace } from "./dom.js";

const ROW = 34;
const MORE = 8; // rows above and below what is in sight

// columns: [{name, title, width, numeric, cell(place) -> nodes or text}]; open(place) is called for the chosen row.
export function rowsTable({ label, columns, sort, onSort, open }) {
  const state = { places: [], chosen: 0 };
  const body = el("div", { class: "window", role: "presentation" });
  const sheet = el("div", { class: "sheet", role: "presentation" }, body);
  const head = headOf(columns, sort, onSort);
  const widths = columns.map((column) => column.width).join(" ");
  const node = el("div", { class: "rows", role: "grid", "aria-label": label, tabindex: 0, "--columns": widths }, head, sheet);
  const draw = () => drawRows(node, body, columns, state, open);
  node.addEventListener("scroll", () => requestAnimationFrame(draw), { passive: true });
  new ResizeObserver(draw).observe(node);
  return {
    node,
    show(places) {
      Object.assign(state, { places, chosen: Math.min(state.chosen, Math.max(places.length - 1, 0)) });
      node.setAttribute("aria-rowcount", places.length + 1);
      sheet.style.height = `${places.length * ROW}px`;
      draw();
    },
    choose(index) {
      state.chosen = Math.max(0, Math.min(index, state.places.length - 1));
      reveal(node, state.chosen);
      draw();
    },
    move(by) {
      this.choose(state.chosen + by);
    },
    page: () => Math.max(1, Math.floor(node.clientHeight / ROW) - 2),
    openChosen: () => state.places.length && open(state.places[state.chosen]),
    size: () => state.places.length,
  };
}

function headOf(columns, sort, onSort) {
  return el("div", { class: "row head", role: "row", "aria-rowindex": 1 }, columns.map((column) => {
    const direction = sort.by === column.name ? (sort.descending ? "descending" : "ascending") : "none";
    const choose = () => onSort(column.name, sort.by === column.name ? !sort.descending : column.numeric === true);
    return el("div", { role: "columnheader", "aria-sort": direction, class: column.numeric ? "number" : null },
      el("button", { type: "button", name: `sort-${column.name}`, title: column.help, click: choose }, column.title));
  }));
}

function drawRows(node, body, columns, state, open) {
  const first = Math.max(0, Math.floor(node.scrollTop / ROW) - MORE);
  const last = Math.min(state.places.length, Math.ceil((node.scrollTop + node.clientHeight) / ROW) + MORE);
  body.style.transform = `translateY(${first * ROW}px)`;
  const rows = [];
  for (let index = first; index < last; index += 1) rows.push(rowOf(columns, state, index, open));
  replace(body, rows);
  node.setAttribute("aria-activedescendant", state.places.length ? `row-${state.chosen}` : "");
}

function rowOf(columns, state, index, open) {
  const place = state.places[index];
  const cells = columns.map((column) => el("div", { role: "gridcell", class: column.numeric ? "number" : null }, column.cell(place)));
  const properties = { class: "row", role: "row", id: `row-${index}`, "aria-rowindex": index + 2, "aria-selected": String(index === state.chosen) };
  return el("div", { ...properties, click: (event) => event.target.closest("a") || open(place) }, cells);
}

function reveal(node, index) {
  const [top, bottom] = [index * ROW, (index + 2) * ROW]; // the head covers the height of one row
  if (top < node.scrollTop) node.scrollTop = top;
  if (bottom > node.scrollTop + node.clientHeight) node.scrollTop = bottom - node.clientHeight;
}

export function rowKeys(table) {
  return {
    j: () => table.move(1),
    ArrowDown: () => table.move(1),
    k: () => table.move(-1),
    ArrowUp: () => table.move(-1),
    PageDown: () => table.move(table.page()),
    PageUp: () => table.move(-table.page()),
    Home: () => table.choose(0),
    End: () => table.choose(table.size() - 1),
    Enter: () => table.openChosen(),
  };
}

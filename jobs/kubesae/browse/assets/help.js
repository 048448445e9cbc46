// What the keys do, in a dialog.

import { el, replace } from "./dom.js";

const KEYS = [
  [["/"], "search"],
  [["j", "k", "↓", "↑"], "next and previous row"],
  [["Enter"], "open the row"],
  [["n", "p"], "next and previous feature"],
  [["]", "["], "next and previous group of rows"],
  [["Esc"], "back"],
  [["d"], "dark or light"],
  [["?"], "this list"],
];

export function toggleHelp(dialog) {
  if (dialog.open) return dialog.close();
  const rows = KEYS.map(([keys, meaning]) => [el("dt", null, keys.map((key) => [el("kbd", null, key), " "])), el("dd", null, meaning)]);
  replace(dialog, el("h2", { id: "help-title" }, "Keys"), el("dl", null, rows),
    el("button", { type: "button", click: () => dialog.close() }, "Close"));
  dialog.showModal();
}

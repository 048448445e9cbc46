// Elements made of text and attributes. Nothing here reads HTML, so no text of a corpus can become markup.

const SVG = "http://www.w3.org/2000/svg";

export function el(tag, properties, ...children) {
  return filled(document.createElement(tag), properties, children);
}

export function svg(tag, properties, ...children) {
  return filled(document.createElementNS(SVG, tag), properties, children);
}

export function replace(node, ...children) {
  node.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
}

// As replace; what had the focus has it again, found by its name.
export function redraw(node, ...children) {
  const name = node.contains(document.activeElement) ? document.activeElement.getAttribute("name") : null;
  replace(node, ...children);
  if (name) node.querySelector(`[name="${CSS.escape(name)}"]`)?.focus({ preventScroll: true });
}

function filled(node, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (name.startsWith("--")) node.style.setProperty(name, value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  replace(node, ...children);
  return node;
}

// What shows a token and its value beside the pointer, of elements that have `data-tip`.
export function watchTips(root, tip) {
  root.addEventListener("pointerover", (event) => showTip(tip, event.target.closest?.("[data-tip]"), event));
  root.addEventListener("pointerleave", () => hideTip(tip));
}

export function showTip(tip, target, event, text = target?.dataset.tip) {
  if (!text) return hideTip(tip);
  tip.textContent = text;
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(event.clientX + 12, innerWidth - box.width - 8))}px`;
  tip.style.top = `${event.clientY + 18 + box.height > innerHeight ? event.clientY - box.height - 10 : event.clientY + 18}px`;
}

export function hideTip(tip) {
  tip.hidden = true;
}

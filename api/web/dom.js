// Elements. All text of users and servers enters the page here, as text: nothing is ever parsed as HTML.

const svg = "http://www.w3.org/2000/svg";

// el makes an element. Properties that begin with "on" are listeners, "data" is the dataset, everything else an attribute;
// what is null, undefined or false is left out.
export function el(tag, properties, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "data") Object.assign(node.dataset, value);
    else if (name === "value") node.value = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== false));
  return node;
}

const shapes = {
  close: ["M6 6l12 12M18 6L6 18"],
  copy: ["M9 9h10v10H9z", "M15 9V5H5v10h4"],
  dice: ["M5 5h14v14H5z", "M9 9h.01M15 9h.01M12 12h.01M9 15h.01M15 15h.01"],
  done: ["M5 12.5l4.5 4.5L19 7.5"],
  down: ["M12 4v11M7 10.5l5 5 5-5", "M5 20h14"],
  fail: ["M12 8v5M12 16.5h.01", "M12 3.5a8.5 8.5 0 1 0 0 17 8.5 8.5 0 0 0 0-17z"],
  file: ["M7 3.5h7l4 4v13H7z", "M14 3.5v4h4"],
  key: ["M14.5 9.5a4 4 0 1 1-1.2-2.8 4 4 0 0 1 1.2 2.8z", "M13.2 12.3l6.3 6.2M17 16l2-2"],
  left: ["M15 5l-7 7 7 7"],
  link: ["M10 5H5v14h14v-5", "M14 5h5v5M19 5l-8 8"],
  moon: ["M19.5 14.5A8 8 0 0 1 9.5 4.5a8 8 0 1 0 10 10z"],
  play: ["M8 5.5v13l10.5-6.5z"],
  right: ["M9 5l7 7-7 7"],
  screen: ["M4 5h16v11H4z", "M9 20h6M12 16v4"],
  stop: ["M7 7h10v10H7z"],
  sun: ["M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8z", "M12 2.5v2M12 19.5v2M2.5 12h2M19.5 12h2M5.3 5.3l1.4 1.4M17.3 17.3l1.4 1.4M18.7 5.3l-1.4 1.4M6.7 17.3l-1.4 1.4"],
  trash: ["M5 7h14M10 7V4.5h4V7M7 7l1 12.5h8L17 7"],
  upload: ["M12 16V5M7 9.5l5-5 5 5", "M5 20h14"],
};

// icon is a picture beside a text, or within a button that has a label of its own.
export function icon(name) {
  const node = document.createElementNS(svg, "svg");
  node.setAttribute("viewBox", "0 0 24 24");
  node.setAttribute("class", "icon");
  node.setAttribute("aria-hidden", "true");
  for (const d of shapes[name]) {
    const path = document.createElementNS(svg, "path");
    path.setAttribute("d", d);
    node.append(path);
  }
  return node;
}

// button makes a button with an icon; without a text the label is for screen readers and the tooltip.
export function button(name, label, onclick, properties = {}) {
  const { bare, ...rest } = properties;
  return el("button", { type: "button", onclick, ...(bare ? { "aria-label": label, title: label } : {}), ...rest }, name && icon(name), !bare && el("span", null, label));
}

let ids = 0;

// nextId makes the ID that ties a label to its field.
export const nextId = () => `f${++ids}`;

// say tells a text to screen readers.
export function say(text) {
  const live = document.getElementById("live");
  if (live.textContent !== text) live.textContent = text;
}

// copy puts a text on the clipboard. Browsers have the modern way on https and loopback only.
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = el("textarea", { class: "unseen", readonly: true, "aria-hidden": "true", value: text });
    (document.querySelector("dialog[open]") ?? document.body).append(area);
    const before = document.activeElement;
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    before?.focus();
    if (!done) {
      say("The browser did not let the page copy.");
      return false;
    }
  }
  say("Copied.");
  return true;
}

// copyButton says in its own place that it has copied.
export function copyButton(label, text, properties = {}) {
  const words = el("span", null, label);
  return el("button", {
    type: "button", ...properties,
    onclick: async () => {
      if (!(await copy(typeof text === "function" ? text() : text))) return;
      words.textContent = "Copied";
      setTimeout(() => (words.textContent = label), 1500);
    },
  }, icon("copy"), words);
}

// dialog shows a modal dialog with a heading and returns it; it leaves the page when it is closed, and the focus goes back
// to where it was, which the browser sees to.
export function dialog(title, properties, ...children) {
  const id = nextId();
  const box = el("dialog", { "aria-labelledby": id, ...properties },
    el("div", { class: "dialog-head" }, el("h2", { id }, title), button("close", "Close", () => box.close(), { bare: true, class: "quiet" })),
    children);
  box.addEventListener("close", () => box.remove());
  box.addEventListener("click", (event) => event.target === box && box.close());
  document.body.append(box);
  box.showModal();
  return box;
}

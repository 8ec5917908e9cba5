// What a job has made: pictures with a closer look at each, players, texts, files.

import { button, copyButton, el, icon, nextId } from "./dom.js";
import { own } from "./http.js";
import { bytes } from "./words.js";

// What a browser shows as a picture and the API serves inline. SVG is not among them: it may hold a script.
const pictures = ["image/png", "image/apng", "image/jpeg", "image/webp", "image/gif", "image/avif", "image/bmp"];
const longText = 20_000; // characters of a text that are shown at first

const facts = (out) => [out.width && `${out.width} × ${out.height}`, bytes(out.size_bytes)].filter(Boolean).join(" · ");

// gallery shows outputs as they come; show may be called again with more.
export function gallery() {
  const grid = el("div", { class: "grid" });
  const rest = el("div", { class: "rest" });
  const shown = new Set();
  const looks = []; // the pictures, for the closer look

  const add = (out) => {
    const name = `${out.node_id}/${out.filename ?? ""}/${out.sha256 ?? out.text ?? out.url}`;
    if (shown.has(name)) return;
    shown.add(name);
    if (out.filename === undefined) rest.append(textOf(out));
    else if (pictures.includes(out.content_type)) grid.append(pictureOf(out, looks));
    else if (/^(video|audio)\//.test(out.content_type ?? "")) rest.append(playerOf(out));
    else rest.append(fileOf(out));
  };

  return {
    element: el("div", { class: "gallery" }, grid, rest),
    add,
    show(output) {
      for (const out of [...(output.images ?? []), ...(output.files ?? []), ...(output.texts ?? [])]) add(out);
      return shown.size;
    },
  };
}

const downloadLink = (out, properties) =>
  el("a", { href: own(out.url), download: out.filename, "aria-label": `Download ${out.filename}`, title: "Download", ...properties }, icon("down"));

function pictureOf(out, looks) {
  const at = looks.push(out) - 1;
  return el("figure", { class: out.temp ? "temp" : null },
    el("button", { type: "button", class: "look", "aria-label": `Look at ${out.filename}`, onclick: () => look(looks, at) },
      el("img", { src: own(out.url), alt: out.filename, width: out.width, height: out.height, loading: "lazy", decoding: "async" })),
    el("figcaption", null,
      el("span", { class: "file-name", title: out.filename }, out.filename),
      el("span", { class: "note" }, out.temp ? `Preview · ${facts(out)}` : facts(out)),
      downloadLink(out, { class: "quiet" })));
}

function playerOf(out) {
  const kind = out.content_type.split("/")[0];
  return el("figure", { class: "player" },
    el(kind, { controls: true, preload: "metadata", src: own(out.url), "aria-label": out.filename }),
    el("figcaption", null, el("span", { class: "file-name", title: out.filename }, out.filename), el("span", { class: "note" }, facts(out)), downloadLink(out, { class: "quiet" })));
}

const fileOf = (out) =>
  el("p", { class: "file" }, icon("file"), el("span", { class: "file-name", title: out.filename }, out.filename), el("span", { class: "note" }, facts(out)), downloadLink(out, { class: "quiet" }));

function textOf(out) {
  const body = el("pre", { class: "text", tabindex: "0", "aria-label": `Text of node ${out.node_id}` });
  let whole = out.text ?? "";
  const put = (text) => {
    whole = text;
    body.textContent = text.length > longText ? `${text.slice(0, longText)}\n...` : text;
  };
  put(whole);
  if (out.text === undefined && out.url) {
    body.textContent = "Loading ...";
    fetch(own(out.url)).then((r) => (r.ok ? r.text() : Promise.reject(new Error())))
      .then(put, () => (body.textContent = "The text could not be loaded. Reload the page for a new link."));
  }
  return el("figure", { class: "said" }, body, el("figcaption", null, el("span", { class: "note" }, `Text of node ${out.node_id}`), copyButton("Copy", () => whole, { class: "quiet small" })));
}

// look opens a picture as large as the window, with the keys that one tries: arrows, Home, End, z, Escape.
function look(all, start) {
  let at = start;
  const picture = el("img", { alt: "" });
  const title = el("h2", { id: nextId(), class: "file-name" });
  const note = el("span", { class: "note" });
  const download = el("span");
  const stage = el("div", { class: "stage", tabindex: "0", role: "group", "aria-label": "Picture. Enter for its real size." }, picture);
  const go = (to) => {
    at = (to + all.length) % all.length;
    const out = all[at];
    picture.src = own(out.url);
    picture.alt = out.filename;
    title.textContent = out.filename;
    note.textContent = [`${at + 1} of ${all.length}`, facts(out)].join(" · ");
    download.replaceChildren(downloadLink(out, { class: "quiet" }));
    stage.classList.remove("real");
  };
  const zoom = () => stage.classList.toggle("real");
  const many = all.length > 1;
  const box = el("dialog", { class: "zoom", "aria-labelledby": title.id },
    el("div", { class: "dialog-head" }, title, note,
      many && button("left", "Previous picture", () => go(at - 1), { bare: true, class: "quiet" }),
      many && button("right", "Next picture", () => go(at + 1), { bare: true, class: "quiet" }),
      download,
      button("close", "Close", () => box.close(), { bare: true, class: "quiet" })),
    stage);
  stage.addEventListener("click", zoom);
  box.addEventListener("keydown", (event) => {
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: all.length - 1 }[event.key];
    if (to !== undefined && !stage.classList.contains("real")) {
      event.preventDefault();
      go(to);
    } else if (event.key === "z" || (event.key === "Enter" && event.target === stage)) zoom();
  });
  box.addEventListener("close", () => box.remove());
  document.body.append(box);
  go(at);
  box.showModal();
  stage.focus();
}

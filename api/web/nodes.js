// The list of a workflow's nodes: what has run, what runs, what failed and why.

import { el, icon } from "./dom.js";
import { classOf, isLink, order, titleOf } from "./graph.js";

const sentence = 60; // characters; ComfyUI's own messages are shorter, and say the rest in their details

// problems are the errors of a node as texts, with the name of the input that each is about.
export function problems(nodeErrors, id) {
  return (nodeErrors?.[id]?.errors ?? []).map((e) => ({
    input: typeof e.extra_info?.input_name === "string" ? e.extra_info.input_name : "",
    text: (e.message ?? "").length > sentence ? e.message : [e.message, e.details].filter(Boolean).join(": "),
    nearest: typeof e.extra_info?.nearest === "string" ? e.extra_info.nearest : "",
  }));
}

// feeding are the nodes that must have run before this one does.
export function feeding(nodes, id) {
  const found = new Set();
  const walk = [id];
  while (walk.length > 0) {
    for (const value of Object.values(nodes[walk.pop()]?.inputs ?? {})) {
      if (!isLink(value) || found.has(value[0])) continue;
      found.add(value[0]);
      walk.push(value[0]);
    }
  }
  return found;
}

// nodeList is the list with a method that brings it up to date. `edit` is called with the ID of a node that is to be edited,
// where its form is shown.
export function nodeList(nodes, edit) {
  const rows = new Map();
  const list = el("ol", { class: "nodes" });
  const add = (id, known = nodes) => {
    const state = el("span", { class: "state" });
    const errors = el("ul", { class: "problems" });
    const title = titleOf(known, id);
    const kind = classOf(known, id);
    const row = el("li", { data: { node: id } },
      state,
      el("div", { class: "node" },
        el("span", { class: "node-title" }, title),
        el("span", { class: "node-class" }, [kind !== title && kind, `#${id}`].filter(Boolean).join(" ")),
        errors),
      edit && known[id] && el("button", { type: "button", class: "quiet small", onclick: () => edit(id), "aria-label": `Edit ${title}` }, "Edit"));
    rows.set(id, { row, state, errors });
    list.append(row);
    return rows.get(id);
  };
  for (const id of order(nodes)) add(id);

  const mark = (entry, name, text) => {
    if (entry.row.dataset.state === name) return;
    entry.row.dataset.state = name;
    entry.state.replaceChildren(...(name === "done" ? [icon("done")] : name === "failed" ? [icon("fail")] : []), el("span", { class: "unseen" }, text));
  };

  return {
    element: list,
    show({ current, done, failed, nodeErrors, complete }) {
      for (const id of [current, failed, ...Object.keys(nodeErrors ?? {})]) if (id && !rows.has(id)) add(id);
      for (const [id, entry] of rows) {
        const found = problems(nodeErrors, id);
        if (id === failed || found.length > 0) mark(entry, "failed", "failed");
        else if (id === current) mark(entry, "current", "running");
        else if (complete || done?.has(id)) mark(entry, "done", "done");
        else mark(entry, "waiting", "");
        entry.errors.replaceChildren(...found.map((p) =>
          el("li", null, p.input && el("code", null, p.input), p.input && " ", p.text, p.nearest && el("span", null, " Did you mean ", el("code", null, p.nearest), "?"))));
      }
    },
    // reveal brings a node's row into view.
    reveal: (id) => rows.get(id)?.row.scrollIntoView({ block: "center" }),
  };
}

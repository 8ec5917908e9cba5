// The form: a workflow, its prompts, seeds and files, and the button that runs it.

import { showCode } from "./code.js";
import { button, el, icon, nextId, say } from "./dom.js";
import { isWorkflowFile, names } from "./files.js";
import { read, titleOf } from "./graph.js";
import { call, Failure } from "./http.js";
import { stringify } from "./json.js";
import { dropDraft, keep, keepDraft } from "./kept.js";
import { problems } from "./nodes.js";
import { optionsForm, optionsOf } from "./options.js";
import { workflowOf } from "./png.js";
import { sheet } from "./sheet.js";
import { plural } from "./words.js";

const draftAfter = 400; // ms without a key stroke
const none = { elements: [], parts: new Map(), seeds: [], build() {}, uploading: () => false };

// composer makes the form. `submitted` is called with the ID of a job that was accepted.
export function composer(submitted) {
  const element = el("section", { class: "pane composer", "aria-label": "Workflow" });
  let work = null; // {kind, graph, nodes, name, files, options, random}
  let page = none; // the fields of work
  let last = null; // {body, key} of a submission that may or may not have arrived
  let draftTimer = 0;
  let sent = ""; // the job whose workflow this is, as long as nothing is changed

  const record = () => ({
    text: stringify(work.graph), name: work.name, files: work.files.map(({ name, ref }) => ({ name, ref })),
    options: work.options, random: work.random,
  });

  const changed = () => {
    sent = "";
    clearTimeout(draftTimer);
    draftTimer = setTimeout(() => work && keepDraft(record()), draftAfter);
  };

  // load shows a workflow; it throws an Error for a person when the text is none.
  const load = (text, { name = "", files = [], options = {}, random = false } = {}) => {
    const found = read(text);
    work = { ...found, name, files: [...files, ...found.files], options: { ...options }, random };
    sent = "";
    show();
  };

  // empty takes the workflow away, and says why where that is not plain.
  const empty = (why = "") => {
    work = null;
    sent = "";
    clearTimeout(draftTimer);
    show(why);
  };

  const clear = () => {
    empty();
    dropDraft();
    element.querySelector("button, input")?.focus();
  };

  const refuse = (error) => {
    const at = element.querySelector(".refusal");
    at.replaceChildren(icon("fail"), el("div", null, el("p", null, error.message)));
    at.hidden = false;
  };

  const open = async (file) => {
    try {
      let text = null;
      if (isWorkflowFile(file)) text = await file.text();
      else if (file.type === "image/png" || /\.png$/i.test(file.name)) text = workflowOf(await file.arrayBuffer());
      else throw new Error(`${file.name} is no workflow. Drop a JSON file, or a PNG that ComfyUI has saved.`);
      if (text === null) throw new Error(`${file.name} holds no workflow: only PNG files that ComfyUI has saved with its metadata do.`);
      load(text, { name: file.name });
      changed();
      say(`Workflow ${file.name} loaded: ${plural(Object.keys(work.nodes).length, "node")}.`);
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      refuse(error);
    }
  };

  // take gives dropped files to what they suit: the field under the pointer, the next input without a file, or the form.
  const take = (list, target) => {
    const free = () => [...page.parts.values()].filter((p) => p.take).sort((a, b) => a.has() - b.has());
    for (const file of list) {
      if (isWorkflowFile(file)) return open(file);
      const field = [...page.parts.values()].find((p) => p.take && p.element.contains(target)) ?? free()[0];
      if (!field) return open(file);
      field.take(file);
      target = null;
    }
  };

  const show = (why) => {
    page = work ? sheet(work, changed) : none;
    element.replaceChildren(...(work ? filled() : blank(why)));
  };

  const chooser = (label, properties) => {
    const input = el("input", { type: "file", accept: ".json,application/json,image/png", class: "unseen", id: nextId(), onchange: () => input.files[0] && open(input.files[0]) });
    return [input, el("label", { for: input.id, class: "button", ...properties }, icon("file"), el("span", null, label))];
  };

  const refusal = () => el("div", { class: "refusal box bad", role: "alert", hidden: true });

  const blank = (why) => [
    el("h1", null, "New job"),
    why && el("p", { class: "note" }, why),
    el("div", { class: "drop" }, icon("upload"),
      el("p", null, el("strong", null, "Drop a ComfyUI workflow here")),
      el("p", { class: "note" }, "A JSON file (Workflow > Export (API) in the editor), or a PNG that ComfyUI has saved. Pasting works, too."),
      el("div", { class: "row" }, chooser("Choose a file", { class: "button main" }),
        button("play", "Try an example", async () => {
          const text = await (await fetch(new URL("example.json", import.meta.url))).text();
          load(text, { name: "example.json" });
          element.querySelector(".run").focus();
        }))),
    refusal(),
  ].filter(Boolean);

  const filled = () => {
    const form = el("form", { novalidate: true, onsubmit: (event) => (event.preventDefault(), run()) });
    const count = Object.keys(work.nodes).length;
    const head = el("div", { class: "work-head" },
      el("div", null, el("h1", { class: "file-name", title: work.name }, work.name || "Workflow"), el("p", { class: "note" }, plural(count, "node"))),
      chooser("Replace"), button("close", "Remove the workflow", clear, { bare: true, class: "quiet" }));
    form.append(head);
    form.append(...page.elements);
    const sure = el("details", { class: "group" }, el("summary", null, "Options"), optionsForm(work.options, changed));
    sure.open = Object.values(work.options).some(Boolean);
    const runs = el("button", { type: "submit", class: "main run" }, icon("play"), el("span", null, "Run"));
    form.append(sure, refusal(), el("div", { class: "foot" }, runs, button("copy", "As code", () => showCode(request())), el("span", { class: "note wide-only" }, "Ctrl+Enter")));
    form.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        run();
      }
    });
    return [form];
  };

  // request is the body of the submission as it stands.
  const request = () => {
    const body = { workflow: work.graph, ...optionsOf(work.options) };
    const named = (node) => [...Object.values(node?.inputs ?? {}), ...(Array.isArray(node?.widgets_values) ? node.widgets_values : [])];
    const values = (work.kind === "ui" ? work.graph.nodes : Object.values(work.graph)).flatMap(named);
    const used = work.files.filter((file) => values.some((value) => names(value, file.name)));
    if (used.length > 0) body.images = used.map(({ name, ref }) => ({ name, ref }));
    return body;
  };

  const busy = (on) => {
    const runs = element.querySelector(".run");
    runs.disabled = on;
    runs.lastChild.textContent = on ? "Sending ..." : "Run";
  };

  const run = async () => {
    const form = element.querySelector("form");
    if (!work || element.querySelector(".run").disabled) return;
    const invalid = form.querySelector(":invalid:not(fieldset)");
    if (invalid) {
      for (let d = invalid.closest("details"); d; d = d.parentElement.closest("details")) d.open = true;
      invalid.reportValidity();
      return;
    }
    if (page.uploading()) {
      refuse(new Error("A file is still being uploaded. Run it in a moment."));
      return;
    }
    if (work.random) roll();
    for (const p of page.parts.values()) p.problem("");
    element.querySelector(".refusal").hidden = true;
    busy(true);
    try {
      const body = stringify(request());
      const remembered = record();
      if (last?.body !== body) last = { body, key: [...crypto.getRandomValues(new Uint32Array(4))].map((n) => n.toString(16)).join("-") };
      const job = await call("POST", "submit_workflow", { text: body, headers: { "Idempotency-Key": last.key } });
      last = null;
      await keep({ ...remembered, id: job.id, title: work.options.title?.trim() ?? "" });
      sent = job.id;
      submitted(job);
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      if (error.status >= 400 && error.status < 500) last = null;
      refuseJob(error);
    }
    if (element.querySelector(".run")) busy(false);
  };

  // refuseJob says why the server did not take the job, at the fields that are to blame as well.
  const refuseJob = (error) => {
    const found = mark(error.nodeErrors);
    const at = element.querySelector(".refusal");
    at.replaceChildren(icon("fail"), el("div", null,
      el("p", null, error.message),
      found.length > 0 && el("ul", null, found.map(({ id, p }) => el("li", null,
        el("button", { type: "button", class: "link", onclick: () => edit(id, p.input) }, titleOf(work.nodes, id)), " ",
        p.input && el("code", null, p.input), p.input && " ", !error.message.includes(p.text) && p.text, p.nearest && el("span", null, " Did you mean ", el("code", null, p.nearest), "?")))),
      error.status >= 500 && error.requestId && el("p", { class: "note" }, `Request ${error.requestId}`)));
    at.hidden = false;
    at.scrollIntoView({ block: "nearest" });
  };

  // mark puts the errors of nodes at their fields, and returns them all.
  const mark = (nodeErrors) => {
    const found = Object.keys(nodeErrors ?? {}).flatMap((id) => problems(nodeErrors, id).map((p) => ({ id, p })));
    if (found.length > 0) page.build();
    for (const { id, p } of found) page.parts.get(`${id}.${p.input}`)?.problem(p.nearest ? `${p.text} Did you mean ${p.nearest}?` : p.text);
    return found;
  };

  // edit puts the focus on an input of a node.
  const edit = (id, input) => {
    if (!work) return;
    page.build();
    const found = page.parts.get(`${id}.${input}`) ?? [...page.parts].find(([name]) => name.startsWith(`${id}.`))?.[1];
    if (!found) return;
    for (let d = found.element.closest("details"); d; d = d.parentElement.closest("details")) d.open = true;
    found.input.scrollIntoView({ block: "center" });
    found.input.focus();
  };

  const roll = () => page.seeds.forEach((s) => s.roll());

  show();
  return {
    element, load, empty, open, take, edit, mark,
    get sent() {
      return sent;
    },
    set sent(id) {
      sent = id;
    },
    get work() {
      return work;
    },
    get seeds() {
      return page.seeds.length;
    },
    // again runs the workflow that is shown once more, with other seeds.
    again() {
      roll();
      return run();
    },
  };
}

// The form beside the job that it has started, or that an address names.

import { composer } from "./composer.js";
import { el } from "./dom.js";
import { own } from "./http.js";
import { jobPanel } from "./job.js";
import { kept, keptDraft } from "./kept.js";
import { workflowOf } from "./png.js";

const form = composer((job) => {
  location.hash = `#/jobs/${encodeURIComponent(job.id)}`;
});
let panel = null;

function files(event) {
  return event.dataTransfer?.types.includes("Files") ?? false;
}

// Files may be dropped anywhere, and workflows pasted where nobody writes.
addEventListener("dragover", (event) => {
  if (!files(event) || !form.element.isConnected) return;
  event.preventDefault();
  form.element.classList.add("dropping");
});
addEventListener("dragleave", (event) => event.relatedTarget === null && form.element.classList.remove("dropping"));
addEventListener("drop", (event) => {
  if (!files(event)) return;
  event.preventDefault();
  form.element.classList.remove("dropping");
  if (form.element.isConnected && !document.querySelector("dialog[open]")) form.take([...event.dataTransfer.files], event.target);
});
addEventListener("paste", (event) => {
  if (!form.element.isConnected || document.querySelector("dialog[open]") || event.target.closest?.("input, textarea")) return;
  const text = event.clipboardData?.getData("text/plain") ?? "";
  if (text.trimStart().startsWith("{")) form.open(new File([text], "pasted.json", { type: "application/json" }));
  else if (event.clipboardData?.files.length > 0) form.take([...event.clipboardData.files], event.target);
});

// again is what a job's panel may do with the form, while the form shows the workflow of that job.
const again = (id) => ({
  possible: () => form.sent === id,
  icon: () => (form.seeds > 0 ? "dice" : "play"),
  label: () => (form.seeds > 0 ? "Run again with another seed" : "Run again"),
  run: () => form.again(),
});

export function leave() {
  panel?.stop();
  panel = null;
}

// showNew shows the form as it was left, beside an empty place.
export async function showNew(main) {
  leave();
  main.replaceChildren(el("div", { class: "bench" }, form.element,
    el("section", { class: "pane job waiting", "aria-label": "Job" }, el("p", { class: "empty" }, "What the job makes will appear here."))));
  if (form.work) return;
  const draft = await keptDraft();
  if (draft && !form.work) restore(draft);
}

// restore puts a record of kept.js into the form.
function restore(record) {
  try {
    form.load(record.text, record);
    return true;
  } catch {
    return false; // written by another version of this page
  }
}

// showJob shows a job, and its workflow in the form, where this browser knows it or a picture tells it.
export async function showJob(main, id) {
  leave();
  const record = await kept(id);
  const mine = (panel = jobPanel(id, {
    title: record?.title || record?.name || "", edit: form.edit, again: again(id),
    ended(status) {
      if (!record) fromPicture(id, status, mine);
      if (form.sent === id) form.mark(status.node_errors);
    },
  }));
  main.replaceChildren(el("div", { class: "bench" }, form.element, panel.element));
  if (form.sent !== id) {
    form.empty("This browser does not know the workflow of this job.");
    if (record && restore(record)) form.sent = id;
  }
  if (form.sent === id) mine.know(form.work.nodes);
}

// fromPicture reads the workflow of a job that another browser or program has sent from a picture that it has made.
async function fromPicture(id, status, mine) {
  const png = status.output?.images?.find((out) => out.content_type === "image/png");
  if (!png) return;
  try {
    const answer = await fetch(own(png.url));
    const text = answer.ok ? workflowOf(await answer.arrayBuffer()) : null;
    if (text === null || panel !== mine) return;
    form.load(text, { name: png.filename });
    form.sent = id;
    mine.know(form.work.nodes);
  } catch (error) {
    console.warn("the workflow could not be read from the picture", error);
  }
}

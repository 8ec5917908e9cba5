// What a submission may carry beside the workflow.

import { el, nextId } from "./dom.js";

// optionsForm edits a record of options; `changed` is told when one has changed.
export function optionsForm(options, changed) {
  const line = (label, input, note) => {
    input.id = nextId();
    return el("div", { class: "field inline" }, el("label", { for: input.id }, label), input, note && el("span", { class: "note" }, note));
  };
  const text = (name, properties) => {
    const input = el("input", {
      type: "text", autocomplete: "off", value: options[name] ?? "", ...properties,
      oninput: () => {
        options[name] = input.value;
        changed();
      },
    });
    return input;
  };
  const priority = el("select", { onchange: () => ((options.priority = priority.value), changed()) },
    [["", "normal"], ["1", "1, first"], ["2", "2"], ["3", "3, normal"], ["4", "4"], ["5", "5, last"]].map(([value, label]) =>
      el("option", { value, selected: (options.priority ?? "") === value }, label)));
  return el("div", { class: "options" },
    line("Name", text("title", { maxlength: "200", placeholder: "what you call this job" })),
    line("Priority", priority),
    line("Time limit", text("timeout", { inputmode: "numeric", pattern: "[1-9][0-9]*", title: "Whole seconds" }), "seconds on the GPU"),
    line("Backend", text("backend", { placeholder: "any", pattern: "[a-z0-9-]{1,64}", title: "A pool by name or kind: small letters, digits and dashes" })),
    line("GPU", text("gpu", { placeholder: "any" })));
}

// optionsOf are the fields of a submission.
export function optionsOf(options) {
  const fields = {};
  if (options.title?.trim()) fields.metadata = { title: options.title.trim() };
  if (options.priority) fields.priority = Number(options.priority);
  if (options.timeout) fields.timeout_seconds = Number(options.timeout);
  if (options.backend?.trim()) fields.backend = options.backend.trim();
  if (options.gpu?.trim()) fields.gpu = options.gpu.trim();
  return fields;
}

// The form's fields, one for each plain input of a workflow.

import { button, el, icon, nextId } from "./dom.js";
import { classOf, randomSeed, titleOf } from "./graph.js";
import { isNumber, numberOf, parse, stringify } from "./json.js";

// Each maker gets the workflow's nodes, the field as graph.js has found it, and what is told of a new value. It returns
// {element, input}, and puts the text of an error below the input with `problem`.

function frame(nodes, field, input, { label, extra, hint } = {}) {
  const problem = el("p", { class: "problem", id: nextId() });
  input.id = nextId();
  input.setAttribute("aria-describedby", problem.id);
  const title = label ?? titleOf(nodes, field.id);
  const element = el("div", { class: "field" },
    el("div", { class: "field-head" },
      el("label", { for: input.id }, title),
      hint && el("span", { class: "note" }, hint)),
    el("div", { class: "field-body" }, input, extra), problem);
  return {
    element, input,
    problem(text) {
      problem.textContent = text;
      if (text) input.setAttribute("aria-invalid", "true");
      else input.removeAttribute("aria-invalid");
    },
  };
}

const about = (nodes, field) => [titleOf(nodes, field.id) !== classOf(nodes, field.id) && classOf(nodes, field.id), `#${field.id}`, field.name].filter(Boolean).join(" · ");

export function promptField(nodes, field, changed) {
  const area = el("textarea", { rows: "3", spellcheck: "true", value: field.value, oninput: () => changed(area.value) });
  const made = frame(nodes, field, area, { hint: about(nodes, field), extra: null });
  if (field.role) made.element.querySelector("label").append(" ", el("span", { class: `role ${field.role}` }, field.role));
  return made;
}

// seedField has a method that throws the dice.
export function seedField(nodes, field, changed) {
  const input = numberInput(field.value, changed, "numeric");
  const roll = () => {
    input.value = String(randomSeed());
    input.dispatchEvent(new Event("input", { bubbles: true }));
  };
  const dice = button("dice", `Another ${field.name} for ${titleOf(nodes, field.id)}`, roll, { bare: true });
  return { ...frame(nodes, field, input, { hint: about(nodes, field), extra: dice }), roll };
}

// fileField chooses a file for an input; `chosen` gets it.
export function fileField(nodes, field, accept, chosen) {
  const input = el("input", { type: "file", accept, class: "unseen", onchange: () => input.files[0] && chosen(input.files[0]) });
  const picture = el("div", { class: "thumb" }, icon("file"));
  const name = el("span", { class: "file-name" });
  const state = el("span", { class: "note", "aria-live": "polite" });
  const chooser = el("div", { class: "chooser" }, picture, el("div", { class: "chooser-text" }, name, state));
  const made = frame(nodes, field, input, { hint: about(nodes, field) });
  const choose = el("label", { for: input.id, class: "button" }, icon("upload"), el("span", null, "Choose"));
  made.element.querySelector(".field-body").prepend(chooser);
  made.element.querySelector(".field-body").append(choose);
  made.element.classList.add("file-field");
  let address = "";
  return {
    ...made,
    // show says what the input has: a file's name, what is known about it, and the file itself for its picture.
    show(text, note, file) {
      name.textContent = text || "No file";
      name.title = text;
      state.textContent = note;
      if (file === undefined) return;
      if (address) URL.revokeObjectURL(address);
      address = file?.type.startsWith("image/") ? URL.createObjectURL(file) : "";
      picture.replaceChildren(address ? el("img", { src: address, alt: "" }) : icon("file"));
    },
  };
}

function numberInput(value, changed, mode) {
  const input = el("input", {
    type: "text", inputmode: mode, autocomplete: "off", spellcheck: "false", class: "number", value: String(value),
    oninput: () => {
      const read = numberOf(input.value);
      input.setCustomValidity(read === null ? "A number is needed here, such as 12 or 0.5." : "");
      if (read !== null) changed(read);
    },
  });
  return input;
}

// otherField suits the kind of the value.
export function otherField(nodes, field, changed) {
  const { value } = field;
  const options = { label: field.name };
  if (isNumber(value)) return frame(nodes, field, numberInput(value, changed, "decimal"), options);
  if (typeof value === "boolean") {
    const box = el("input", { type: "checkbox", checked: value, onchange: () => changed(box.checked) });
    return frame(nodes, field, box, options);
  }
  if (typeof value === "string") {
    const long = value.length > 60 || value.includes("\n");
    const input = el(long ? "textarea" : "input", { ...(long ? { rows: "2" } : { type: "text" }), autocomplete: "off", spellcheck: "false", value, oninput: () => changed(input.value) });
    return frame(nodes, field, input, options);
  }
  const area = el("textarea", {
    rows: "2", spellcheck: "false", class: "json", value: stringify(value ?? null),
    oninput: () => {
      try {
        changed(parse(area.value));
        area.setCustomValidity("");
      } catch {
        area.setCustomValidity("JSON is needed here.");
      }
    },
  });
  return frame(nodes, field, area, { ...options, hint: "JSON" });
}

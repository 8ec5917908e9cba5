// What can be edited of a workflow: a field for each plain input, in groups.

import { el, nextId } from "./dom.js";
import { fileField, otherField, promptField, seedField } from "./fields.js";
import { nameFor, names, upload } from "./files.js";
import { accepts, fields, filesOfEditor, titleOf } from "./graph.js";
import { Failure } from "./http.js";

// sheet makes the fields of a workflow: {elements, parts (by "id.input"), seeds, build, uploading}. `changed` is told of each
// change. What hides most of the fields builds them when it is opened, or by build: there may be thousands.
export function sheet(work, changed) {
  const parts = new Map();
  let uploads = 0;
  let build = () => {};

  // slot is where the value of a field stands.
  const slot = (f) => {
    const [object, name] = work.kind === "ui" ? [f.node.widgets_values, 0] : [work.graph[f.id].inputs, f.name];
    return {
      get: () => object[name],
      set(value) {
        object[name] = value;
        changed();
      },
    };
  };

  const part = (f, made) => (parts.set(`${f.id}.${f.name}`, made), made);
  const group = (title, list) => list.length > 0 && el("section", { class: "group" }, el("h2", null, title), list.map((p) => p.element));

  const filePart = (f) => {
    const value = slot(f);
    const made = fileField(work.nodes, f, accepts(work.nodes[f.id], f.name), (file) => own.take(file));
    const has = () => work.files.some((file) => names(value.get(), file.name));
    const own = {
      ...made, has,
      async take(file) {
        made.problem("");
        made.show(file.name, "Uploading ...", file);
        uploads++;
        try {
          let name = nameFor(file);
          const kept = await upload(file, name);
          if (work.files.some((other) => other.name === name && other.ref !== kept.ref)) name = `${kept.sha256.slice(0, 6)}-${name}`;
          work.files = [...work.files.filter((other) => other.name !== name), { name, ref: kept.ref }];
          value.set(name);
          made.show(file.name, "Uploaded");
        } catch (error) {
          if (!(error instanceof Failure)) throw error;
          made.show(value.get(), "");
          made.problem(error.message);
        } finally {
          uploads--;
        }
      },
    };
    made.show(value.get(), has() ? "Uploaded before" : value.get() ? "Not uploaded: the server may have it" : "", null);
    return part(f, own);
  };

  const always = () => {
    const box = el("input", { type: "checkbox", id: nextId(), checked: work.random, onchange: () => ((work.random = box.checked), changed()) });
    return { element: el("div", { class: "field check" }, box, el("label", { for: box.id }, "Another seed for each run")) };
  };

  const others = (list) => {
    const body = el("div");
    const box = el("details", { class: "group others" }, el("summary", null, "Other inputs ", el("span", { class: "note" }, String(list.length))), body);
    const byNode = Map.groupBy(list, (f) => f.id);
    build = () => {
      if (body.firstChild) return;
      for (const [id, all] of byNode) {
        body.append(el("fieldset", null,
          el("legend", null, titleOf(work.nodes, id), " ", el("span", { class: "note" }, `#${id}`)),
          all.map((f) => part(f, otherField(work.nodes, f, slot(f).set)).element)));
      }
    };
    box.addEventListener("toggle", build);
    return box;
  };

  let elements;
  let seeds = [];
  if (work.kind === "ui") {
    elements = [
      el("div", { class: "box", role: "note" },
        el("p", null, "This is the editor's own format. It is sent as it is, and the server converts it where that is safe."),
        el("p", { class: "note" }, "To edit prompts and seeds here, export it with Workflow > Export (API).")),
      group("Input files", filesOfEditor(work.graph).map(filePart)),
    ];
  } else {
    const found = fields(work.graph);
    seeds = found.seeds.map((f) => part(f, seedField(work.nodes, f, slot(f).set)));
    elements = [
      group("Input files", found.files.map(filePart)),
      group("Prompts", found.prompts.map((f) => part(f, promptField(work.nodes, f, slot(f).set)))),
      group("Seeds", seeds.length > 0 ? [...seeds, always()] : []),
      found.others.length > 0 && others(found.others),
    ];
  }
  return { elements: elements.filter(Boolean), parts, seeds, build: () => build(), uploading: () => uploads > 0 };
}

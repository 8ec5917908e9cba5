// What the page finds in a workflow: prompts, seeds, input files, and everything else that is a plain value.

import { Digits, isNumber, parse } from "./json.js";

const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value) && !(value instanceof Digits);
const isNode = (value) => isObject(value) && typeof value.class_type === "string";

// isLink tells an input that comes from another node: [node, output].
export const isLink = (value) => Array.isArray(value) && value.length === 2 && typeof value[0] === "string" && isNumber(value[1]);

// read makes a workflow of a text: {kind: "api" | "ui", graph, nodes, files}. `nodes` are its nodes by ID, for names.
// An error says, for a person, why it is none.
export function read(text) {
  let value;
  try {
    value = parse(text.replace(/^\uFEFF/, ""));
  } catch (error) {
    throw new Error(`This is not JSON: ${error.message}`);
  }
  return recognize(value);
}

function recognize(value, files = []) {
  if (!isObject(value)) throw new Error("This is no workflow: a workflow is a JSON object.");
  if (Array.isArray(value.nodes)) {
    const nodes = {};
    for (const n of value.nodes) if (isObject(n)) nodes[String(n.id)] = { class_type: String(n.type ?? ""), inputs: {}, _meta: { title: n.title } };
    return { kind: "ui", graph: value, nodes, files };
  }
  if (isObject(value.workflow)) return recognize(value.workflow, Array.isArray(value.images) ? value.images.filter((f) => isObject(f) && f.ref) : []);
  if (isObject(value.prompt) && !isNode(value.prompt)) return recognize(value.prompt);
  const all = Object.values(value);
  if (all.length === 0) throw new Error("This workflow is empty.");
  if (!all.some(isNode)) throw new Error("This is no ComfyUI workflow: no entry has a class_type. In ComfyUI's editor, use Workflow > Export (API).");
  return { kind: "api", graph: cleaned(value), nodes: value, files };
}

const ownFile = /^comfyd\/[^/]+\/[0-9a-f]{12}_/; // how a backend calls a file that came with a job

// cleaned takes away what comfyd and ComfyUI add to a workflow that they run, which stands in the pictures that it makes.
function cleaned(graph) {
  for (const node of Object.values(graph).filter(isNode)) {
    delete node.is_changed;
    if (!isObject(node.inputs)) continue;
    delete node.inputs._comfyd;
    for (const [name, value] of Object.entries(node.inputs)) if (typeof value === "string") node.inputs[name] = value.replace(ownFile, "");
  }
  return graph;
}

export const classOf = (nodes, id) => nodes[id]?.class_type ?? "";

// titleOf is what a person calls a node.
export function titleOf(nodes, id) {
  const node = nodes[id];
  const title = node?._meta?.title;
  return typeof title === "string" && title !== "" ? title : (node?.class_type ?? `Node ${id}`);
}

// order lists the nodes so that each stands behind those that feed it; what has no order keeps the file's.
export function order(nodes) {
  const done = new Set();
  const list = [];
  for (const start of Object.keys(nodes)) {
    const stack = [[start, false]];
    while (stack.length > 0) {
      const [id, fed] = stack.pop();
      if (fed) list.push(id);
      if (fed || done.has(id) || !nodes[id]) continue;
      done.add(id);
      stack.push([id, true]);
      for (const value of Object.values(nodes[id].inputs ?? {}).reverse()) if (isLink(value) && !done.has(value[0])) stack.push([value[0], false]);
    }
  }
  return list;
}

const promptNames = /^(text|text_[a-z0-9]+|prompt|positive|negative|positive_prompt|negative_prompt|clip_[lgh]|t5xxl|llama|caption|tags|lyrics|wildcard_text|populated_text|string_[a-z]|string)$/;
const promptClasses = /TextEncode|Prompt|PrimitiveString|StringConcatenate|Wildcard/i;
const seedNames = /^(seed|noise_seed|rand_seed|random_seed)$/;
const fileNames = /^(image|mask|video|audio|file|upload|image_path|latent)$/;
const fileClasses = /Load|Upload/i;
const mediaFile = /\.(png|apng|jpe?g|webp|gif|bmp|tiff?|avif|mp4|webm|mov|mkv|wav|mp3|flac|ogg|opus|m4a|latent)( \[(input|output|temp)\])?$/i;

function kindOf(node, name, value) {
  if (isNumber(value)) return seedNames.test(name) ? "seed" : "other";
  if (typeof value !== "string") return "other";
  if (fileNames.test(name) && fileClasses.test(node.class_type) && (mediaFile.test(value) || value === "" || /^Load(Image|ImageMask|Audio|Video|Latent)$/.test(node.class_type))) return "file";
  if (value.includes("\n")) return "prompt";
  if (promptNames.test(name) && promptClasses.test(node.class_type)) return "prompt";
  return "other";
}

// fields are the plain inputs of a workflow by kind, each {id, name, value, role}: prompts, seeds, files, others.
export function fields(graph) {
  const found = { prompts: [], seeds: [], files: [], others: [] };
  const roles = rolesOf(graph);
  for (const id of order(graph)) {
    const node = graph[id];
    if (!isNode(node)) continue;
    for (const [name, value] of Object.entries(node.inputs ?? {})) {
      if (isLink(value)) continue;
      const field = { id, name, value, role: /^negative/.test(name) ? "negative" : (roles.get(id) ?? "") };
      found[{ prompt: "prompts", seed: "seeds", file: "files", other: "others" }[kindOf(node, name, value)]].push(field);
    }
  }
  const rank = { positive: 0, "": 1, negative: 2 };
  found.prompts.sort((a, b) => rank[a.role] - rank[b.role]);
  return found;
}

// filesOfEditor are the input files that a workflow in the editor's own format names, each {id, name, node}.
export function filesOfEditor(graph) {
  return graph.nodes
    .filter((n) => isObject(n) && fileClasses.test(n.type) && Array.isArray(n.widgets_values) && typeof n.widgets_values[0] === "string" && mediaFile.test(n.widgets_values[0]))
    .map((node) => ({ id: String(node.id), name: "image", role: "", node }));
}

// rolesOf tells which nodes feed a sampler's positive input, and which its negative one alone.
function rolesOf(graph) {
  const roles = new Map();
  for (const role of ["negative", "positive"]) {
    const walk = Object.values(graph).filter(isNode).map((n) => n.inputs?.[role]).filter(isLink).map((link) => link[0]);
    const seen = new Set();
    while (walk.length > 0) {
      const id = walk.pop();
      if (seen.has(id) || !isNode(graph[id])) continue;
      seen.add(id);
      roles.set(id, role);
      const inputs = graph[id].inputs ?? {};
      for (const [name, value] of Object.entries(inputs)) {
        const other = name === "positive" || name === "negative"; // of a node that passes both on
        if (isLink(value) && (!other || name === role)) walk.push(value[0]);
      }
    }
  }
  return roles;
}

// accepts is the filter of the file chooser for an input.
export function accepts(node, name) {
  const text = `${node.class_type} ${name}`;
  if (/audio/i.test(text)) return "audio/*";
  if (/video/i.test(text)) return "video/*,image/gif,image/webp";
  if (/latent/i.test(text)) return ".latent";
  return "image/*";
}

// randomSeed has 48 bits: more than anybody tries, and a number that every program writes alike.
export function randomSeed() {
  const [high, low] = crypto.getRandomValues(new Uint32Array(2));
  return (high & 0xffff) * 2 ** 32 + low;
}

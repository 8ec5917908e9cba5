// Input files: uploaded once, then named by reference in any number of jobs.

import { call } from "./http.js";

const longest = 120; // characters of a name; the API takes 200 bytes

// nameFor is what the workflow calls a file: as the file is called, where the API takes that.
export function nameFor(file) {
  const plain = file.name.replace(/[\u0000-\u001f\u007f\\/\uFFFD]/g, "_").replace(/ \[(input|output|temp)\]$/, "");
  const dot = plain.lastIndexOf(".");
  const end = dot > 0 ? plain.slice(dot) : "";
  const name = plain.length > longest ? plain.slice(0, longest - end.length) + end : plain;
  return ["", ".", "..", "comfyd"].includes(name) ? `file${end}` : name;
}

// upload keeps a file in the store and returns {name, ref, sha256}.
export const upload = (file, name, signal) =>
  call("POST", `inputs?name=${encodeURIComponent(name)}`, { file, headers: { "Content-Type": "application/octet-stream" }, signal });

// names tells whether an input's value names a file, as in "photo.png" and "photo.png [input]".
export const names = (value, name) => value === name || (typeof value === "string" && value.startsWith(`${name} [`));

export const isWorkflowFile = (file) => file.type === "application/json" || /\.json$/i.test(file.name);

// Calls of the API. The page is served at <root>, its files at <root>web/<digest>/.

export const root = new URL("../../", import.meta.url);

const stored = "comfyd.key";
let memory = ""; // where the browser keeps nothing

export function key() {
  try {
    return localStorage.getItem(stored) ?? memory;
  } catch {
    return memory;
  }
}

export function setKey(value) {
  memory = value;
  try {
    if (value) localStorage.setItem(stored, value);
    else localStorage.removeItem(stored);
  } catch {
    // It lasts as long as the page, then.
  }
}

// Failure is an answer that is no success; status 0 means that there was none.
export class Failure extends Error {
  constructor(status, body) {
    super(body.error ?? `The server answered ${status}.`);
    this.status = status;
    this.code = body.code ?? "";
    this.nodeErrors = body.node_errors ?? {};
    this.requestId = body.request_id ?? "";
  }
}

let askForKey = async () => {};

// whenRefused says what asks for a key when the server refuses the one that there is.
export function whenRefused(ask) {
  askForKey = ask;
}

// call sends a request and returns the JSON of its answer, null where it has none. `file` is a body as it is, `text` one
// of JSON that is written already.
export async function call(method, path, { text, file, headers, signal, asking = true } = {}) {
  for (;;) {
    const sent = key();
    const response = await send(method, path, { text, file, headers, signal, sent });
    if (response.status === 401 && asking) {
      if (sent === key()) await askForKey(sent !== "");
      continue;
    }
    const raw = await response.text();
    let body = {};
    try {
      body = raw === "" ? null : JSON.parse(raw);
    } catch {
      throw new Failure(response.status, { error: `What answers at ${root.host} is not comfyd: it sent something other than JSON.` });
    }
    if (response.ok) return body;
    throw new Failure(response.status, { ...body, request_id: response.headers.get("X-Request-Id") });
  }
}

async function send(method, path, { text, file, headers, signal, sent }) {
  const all = new Headers(headers);
  if (sent) all.set("Authorization", `Bearer ${sent}`);
  if (text !== undefined) all.set("Content-Type", "application/json");
  all.set("Accept", "application/json");
  try {
    return await fetch(new URL(path, root), { method, headers: all, body: text ?? file, signal, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure(0, { error: "The server cannot be reached." });
  }
}

// own makes a link of the API one of this page's origin, which is all that the page may load from: the server may be known
// under several names. Signatures cover the path only.
export function own(link) {
  const url = new URL(link, root);
  const at = url.pathname.search(/\/(outputs|events)\//);
  return at < 0 ? url.href : new URL(url.pathname.slice(at + 1) + url.search, root).href;
}

export const jobPath = (name, id) => `${name}/${encodeURIComponent(id)}`;

// What this browser remembers of jobs: the workflow that was sent, so that it can be shown and sent again. The API does not
// hand out workflows. A record is {id, at, text, name, files, title, options}.

const most = 200;
const draft = "draft"; // the form as it was left
const patience = 2_000; // ms; a browser may take its time, and nobody is to wait for it
const memory = new Map(); // for browsers that keep nothing, such as private windows

const wrap = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

const soon = (promise, otherwise) => Promise.race([promise, new Promise((resolve) => setTimeout(resolve, patience, otherwise))]);

let opened = null;

function open() {
  opened ??= new Promise((resolve) => {
    let request;
    try {
      request = indexedDB.open("comfyd", 1);
    } catch {
      resolve(null);
      return;
    }
    request.onupgradeneeded = () => request.result.createObjectStore("jobs", { keyPath: "id" }).createIndex("at", "at");
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => resolve(null);
  });
  return opened;
}

async function store(mode) {
  const db = await open();
  return db && db.transaction("jobs", mode).objectStore("jobs");
}

export function keep(record) {
  const full = { ...record, at: record.at ?? Date.now() };
  memory.set(full.id, full);
  return soon(write(full));
}

async function write(full) {
  try {
    const jobs = await store("readwrite");
    if (!jobs) return;
    await wrap(jobs.put(full));
    const count = await wrap((await store("readonly")).count());
    if (count > most) await forgetOldest(count - most);
  } catch {
    // A full disk is no reason to stop anybody from working.
  }
}

async function forgetOldest(n) {
  const jobs = await store("readwrite");
  const keys = await wrap(jobs.index("at").getAllKeys(null, n));
  for (const id of keys) if (id !== draft) jobs.delete(id);
}

export const kept = (id) => soon(find(id), memory.get(id) ?? null);

async function find(id) {
  try {
    const jobs = await store("readonly");
    const found = jobs && (await wrap(jobs.get(id)));
    return found ?? memory.get(id) ?? null;
  } catch {
    return memory.get(id) ?? null;
  }
}

export function drop(id) {
  memory.delete(id);
  return soon(remove(id));
}

async function remove(id) {
  try {
    const jobs = await store("readwrite");
    if (jobs) await wrap(jobs.delete(id));
  } catch {
    // It is overwritten or pruned one day.
  }
}

// all returns the records by ID.
export async function all() {
  const found = new Map(memory);
  for (const record of await soon(findAll(), [])) found.set(record.id, record);
  found.delete(draft);
  return found;
}

async function findAll() {
  try {
    const jobs = await store("readonly");
    return jobs ? await wrap(jobs.getAll()) : [];
  } catch {
    return []; // what is in memory, then
  }
}

export function forgetAll() {
  memory.clear();
  return soon(clear());
}

async function clear() {
  try {
    const jobs = await store("readwrite");
    if (jobs) await wrap(jobs.clear());
  } catch {
    // There is nothing to forget.
  }
}

export const keepDraft = (record) => keep({ ...record, id: draft });
export const keptDraft = () => kept(draft);
export const dropDraft = () => drop(draft);

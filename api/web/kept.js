// What this browser remembers of jobs: the workflow that was sent, so that it can be shown and sent again. The API does not
// hand out workflows. A record is {id, at, text, name, files, title, options}.

const most = 200;
const draft = "draft"; // the form as it was left
const memory = new Map(); // for browsers that keep nothing, such as private windows

const wrap = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

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

export async function keep(record) {
  const full = { ...record, at: record.at ?? Date.now() };
  memory.set(full.id, full);
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

export async function kept(id) {
  try {
    const jobs = await store("readonly");
    const found = jobs && (await wrap(jobs.get(id)));
    return found ?? memory.get(id) ?? null;
  } catch {
    return memory.get(id) ?? null;
  }
}

export async function drop(id) {
  memory.delete(id);
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
  try {
    const jobs = await store("readonly");
    for (const record of jobs ? await wrap(jobs.getAll()) : []) found.set(record.id, record);
  } catch {
    // What is in memory, then.
  }
  found.delete(draft);
  return found;
}

export async function forgetAll() {
  memory.clear();
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

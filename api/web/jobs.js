// The list of the key's jobs, with filters, page by page.

import { button, el, nextId, say } from "./dom.js";
import { call } from "./http.js";
import { all } from "./kept.js";
import { codes, duration, exactly, failure, shortId, when } from "./words.js";

const pageSize = 30;
const refreshAfter = 5_000; // ms, while the first page is what is shown
const typing = 300;
const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

let stop = () => {};

export function leave() {
  stop();
}

// showJobs shows the list until leave is called.
export async function showJobs(main) {
  leave();
  const life = new AbortController();
  stop = () => life.abort();

  const filter = { status: "", code: "", since: "", words: "" };
  const rows = new Map();
  let cursor = "";
  let known = await all();
  if (life.signal.aborted) return;

  const list = el("ul", { class: "jobs" });
  const note = el("p", { class: "empty", hidden: true });
  const more = button("down", "Older jobs", () => load(true), { hidden: true });
  const pick = (label, name, options) => {
    const select = el("select", { id: nextId(), onchange: () => ((filter[name] = select.value), load(false)) },
      options.map(([value, text]) => el("option", { value }, text)));
    return el("div", { class: "field inline" }, el("label", { for: select.id }, label), select);
  };
  let timer = 0;
  const search = el("input", {
    type: "search", id: nextId(), placeholder: "words, an ID, or label=value", autocomplete: "off", spellcheck: "false",
    oninput: () => {
      clearTimeout(timer);
      timer = setTimeout(() => ((filter.words = search.value.trim()), load(false)), typing);
    },
  });
  const form = el("form", {
    class: "filters", role: "search", onsubmit: (event) => {
      event.preventDefault();
      if (uuid.test(search.value.trim())) location.hash = `#/jobs/${search.value.trim()}`;
    },
  },
  el("div", { class: "field inline grow" }, el("label", { for: search.id }, "Search"), search),
  pick("Status", "status", [["", "all"], ["RUNNING", "running"], ["COMPLETED", "completed"], ["FAILED", "failed"]]),
  pick("Reason", "code", [["", "any"], ...codes.map((c) => [c, failure(c)])]),
  pick("Sent", "since", [["", "any time"], ["1", "last hour"], ["24", "last day"], ["168", "last week"]]));

  main.replaceChildren(el("section", { class: "pane list", "aria-label": "Jobs" }, el("h1", null, "Jobs"), form, list, note, el("div", { class: "row" }, more)));

  const query = (older) => {
    const q = new URLSearchParams({ limit: String(pageSize) });
    if (filter.status) q.set("status", filter.status);
    if (filter.code) q.set("code", filter.code);
    if (filter.since) q.set("since", new Date(Math.floor((Date.now() - filter.since * 3_600_000) / 60_000) * 60_000).toISOString());
    if (/^[^=\s]+=/.test(filter.words)) q.set("metadata", filter.words);
    if (older) for (const [k, v] of older) q.set(k, v);
    return q;
  };

  // fits compares with what the server cannot search: titles, and the workflows that this browser has sent.
  const fits = (job) => {
    if (!filter.words || /^[^=\s]+=/.test(filter.words)) return true;
    const text = [job.id, ...Object.entries(job.metadata ?? {}).flat(), known.get(job.id)?.text, known.get(job.id)?.name].join("\n").toLowerCase();
    return filter.words.toLowerCase().split(/\s+/).every((word) => text.includes(word));
  };

  let turn = 0;
  let asked = null; // the filters of the page before, which the next one must repeat
  const load = async (older) => {
    const mine = ++turn;
    more.disabled = true;
    try {
      const q = older ? new URLSearchParams(asked) : query();
      if (older) q.set("cursor", cursor);
      else asked = new URLSearchParams(q);
      const page = await call("GET", `jobs?${q}`, { signal: life.signal });
      if (mine !== turn) return;
      known = await all();
      const found = page.jobs.filter(fits);
      put(found, older);
      cursor = page.cursor ?? "";
      more.hidden = !cursor;
      note.hidden = list.children.length > 0;
      note.textContent = cursor ? "None among the newest jobs." : filter.words || filter.status || filter.code || filter.since ? "No job is like that." : "No jobs yet.";
      if (!older && !refreshing) say(`${list.children.length} jobs.`);
    } catch (error) {
      if (life.signal.aborted) return;
      note.hidden = false;
      note.textContent = error.message;
    }
    more.disabled = false;
  };

  // put keeps the rows that are there, so that the focus stays where it is.
  const put = (found, older) => {
    const fresh = found.map((job) => {
      const row = rows.get(job.id) ?? rowOf();
      rows.set(job.id, row);
      row.show(job, known.get(job.id));
      return row.element;
    });
    if (older) {
      const first = fresh.find((e) => !e.isConnected);
      list.append(...fresh);
      first?.querySelector("a").focus();
      return;
    }
    for (const child of [...list.children]) if (!fresh.includes(child)) child.remove();
    fresh.forEach((e, i) => list.children[i] !== e && list.insertBefore(e, list.children[i] ?? null));
  };

  let refreshing = false;
  const refresh = setInterval(async () => {
    if (document.hidden || list.children.length > pageSize) return;
    refreshing = true;
    await load(false);
    refreshing = false;
  }, refreshAfter);
  life.signal.addEventListener("abort", () => (clearInterval(refresh), clearTimeout(timer)));
  await load(false);
}

function rowOf() {
  const badge = el("span", { class: "badge" });
  const title = el("span", { class: "job-name" });
  const note = el("span", { class: "note" });
  const time = el("time", { class: "note" });
  const link = el("a", null, badge, el("span", { class: "job-text" }, title, note), time);
  return {
    element: el("li", null, link),
    show(job, record) {
      link.href = `#/jobs/${encodeURIComponent(job.id)}`;
      const state = job.status === "FAILED" ? (job.code === "canceled" ? "canceled" : "failed") : job.status.toLowerCase();
      badge.textContent = state;
      badge.dataset.state = state;
      title.textContent = job.metadata?.title || record?.name || shortId(job.id);
      const labels = Object.entries(job.metadata ?? {}).filter(([k]) => k !== "title").map(([k, v]) => `${k}=${v}`);
      note.textContent = [
        state === "failed" && failure(job.code), title.textContent !== shortId(job.id) && shortId(job.id), job.backend, ...labels,
        job.ended_at && duration(new Date(job.ended_at) - new Date(job.created_at)),
      ].filter(Boolean).join(" · ");
      time.dateTime = job.created_at;
      time.textContent = when(job.created_at);
      time.title = exactly(job.created_at);
    },
  };
}

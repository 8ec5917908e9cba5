// One job: how far it is, what it has made, why it failed, and what can be done about it.

import { button, copyButton, dialog, el, icon, say } from "./dom.js";
import { follow } from "./follow.js";
import { gallery } from "./gallery.js";
import { classOf, titleOf } from "./graph.js";
import { call, jobPath, own } from "./http.js";
import { drop } from "./kept.js";
import { feeding, nodeList } from "./nodes.js";
import { temporalLink } from "./settings.js";
import { bytes, cure, duration, exactly, failure, phases, plural, shortId, when } from "./words.js";

// jobPanel shows a job until stop is called. `nodes` are its nodes where they are known; `edit` leads to one in the form;
// `ended` is told of the last status.
export function jobPanel(id, { title = "", edit, again, ended }) {
  let nodes = {};
  let list = null;
  let status = null;
  let preview = "";
  const done = new Set();
  let current = "";

  const badge = el("span", { class: "badge" });
  const phase = el("p", { class: "phase" });
  const bar = el("progress", { max: "1", "aria-label": "Progress" });
  const step = el("p", { class: "note step" });
  const trouble = el("p", { class: "box", role: "status", hidden: true });
  const picture = el("img", { class: "preview", alt: "Preview of what is being made", hidden: true });
  const facts = el("dl", { class: "facts" });
  const failed = el("div", { class: "box bad failure", role: "alert", hidden: true });
  const made = gallery();
  const nothing = el("p", { class: "note", hidden: true }, "It has made no output.");
  const actions = el("div", { class: "row actions" });
  const nodesBox = el("details", { class: "group nodes-box", hidden: true }, el("summary", null, "Nodes"));
  const temporal = el("span");
  const stopButton = button("stop", "Cancel", () => cancel(), { class: "danger" });
  const element = el("section", { class: "pane job", "aria-label": "Job" },
    el("div", { class: "job-head" },
      el("h2", { class: "job-title" }, title || "Job"), badge,
      copyButton(shortId(id), id, { class: "quiet small id", title: `Copy the job's ID: ${id}`, "aria-label": `Copy the job's ID, ${id}` }), temporal),
    el("div", { class: "running" }, el("div", { class: "row spread" }, phase, stopButton), bar, step),
    trouble, failed, picture, made.element, nothing, actions, facts, nodesBox);

  let asked = false; // to cancel
  const cancel = async () => {
    stopButton.disabled = asked = true;
    try {
      await call("POST", jobPath("cancel", id));
      say("Canceling.");
    } catch (error) {
      stopButton.disabled = asked = false;
      show(error.message);
    }
  };

  const show = (text) => {
    trouble.textContent = text ?? "";
    trouble.hidden = !text;
  };

  const fact = (name, value, tip) => value && el("div", tip ? { title: tip } : null, el("dt", null, name), el("dd", null, value));

  const facing = () => {
    const m = status.metrics;
    facts.replaceChildren(...[
      fact("Sent", status.created_at && when(status.created_at), status.created_at && exactly(status.created_at)),
      fact("So far", !m && status.created_at && duration(Math.max(0, Date.now() - new Date(status.created_at)))),
      fact("Backend", status.backend),
      fact("GPU", m?.gpu),
      fact("Waited", m && duration((m.queue_ms ?? 0) + (m.cold_start_ms ?? 0)), m?.cold_start_ms ? `${duration(m.cold_start_ms)} of it for a backend to come up` : null),
      fact("Ran", m && m.execution_ms > 0 && duration(m.execution_ms)),
      fact("In all", m && duration(m.total_ms)),
      fact("Attempts", status.attempts > 1 && String(status.attempts), "How often a GPU was given the job"),
      fact("Cached", status.cached && "yes", "Everything but saving came from ComfyUI's cache"),
      fact("Kept until", status.expires_at && when(status.expires_at), status.expires_at && exactly(status.expires_at)),
    ].filter(Boolean));
  };

  const named = (node) => {
    const kind = classOf(nodes, node);
    const name = titleOf(nodes, node);
    return kind && kind !== name ? `${name} (${kind})` : kind ? name : `Node ${node}`;
  };

  const reveal = () => {
    nodesBox.open = true;
    list?.reveal(status.node_id);
  };

  // running shows an open job.
  const running = () => {
    const p = status.progress;
    badge.textContent = phases[status.phase] ? status.phase : "running";
    badge.dataset.state = "running";
    const place = status.queue_position;
    phase.textContent = (phases[status.phase] ?? "Running") + (status.phase === "queued" && place !== undefined ? (place === 0 ? ": next" : `: ${place} ahead`) : "");
    if (p && status.phase === "running") bar.value = p.value;
    else bar.removeAttribute("value");
    const at = p?.current_node ?? "";
    if (current && at !== current) done.add(current);
    if (at !== current) for (const before of feeding(nodes, at)) done.add(before);
    current = at;
    step.textContent = !p ? "" : [
      at && named(at), p.steps > 0 && `step ${p.step} of ${p.steps}`, p.nodes_total > 0 && `${p.nodes_done} of ${p.nodes_total} nodes done`,
    ].filter(Boolean).join(" · ");
    stopButton.disabled = asked || status.phase === "canceling";
    document.title = `${p && status.phase === "running" ? `${Math.round(p.value * 100)} %` : phase.textContent} · comfyd`;
    list?.show({ current, done });
  };

  // end shows a job that has ended.
  const end = () => {
    element.classList.add("ended");
    picture.hidden = true;
    const good = status.status === "COMPLETED";
    badge.textContent = good ? "completed" : status.code === "canceled" ? "canceled" : "failed";
    badge.dataset.state = badge.textContent;
    if (good) {
      const n = made.show(status.output ?? {});
      say(`Completed, ${plural(n, "output")}.`);
      nothing.hidden = n > 0;
      list?.show({ complete: true });
    } else {
      failed.hidden = false;
      failed.replaceChildren(icon(status.code === "canceled" ? "stop" : "fail"), el("div", null,
        el("h3", null, failure(status.code), status.node_id && [": ", el("button", { type: "button", class: "link", onclick: reveal }, named(status.node_id))]),
        status.code !== "canceled" && el("p", { class: "reason" }, status.error),
        el("p", { class: "note" }, cure(status.code))));
      if (status.code === "canceled") failed.classList.remove("bad");
      list?.show({ done, failed: status.node_id, nodeErrors: status.node_errors });
      if (status.node_id || Object.keys(status.node_errors ?? {}).length > 0) nodesBox.open = true;
    }
    document.title = `${good ? "Completed" : failure(status.code)} · comfyd`;
    const files = [...(status.output?.images ?? []), ...(status.output?.files ?? [])];
    actions.replaceChildren(...[
      status.zip_url && el("a", { class: "button", href: own(status.zip_url), download: "" }, icon("down"),
        el("span", null, files.length > 1 ? `Download all (${bytes(files.reduce((sum, f) => sum + f.size_bytes, 0))})` : "Download")),
      again.possible() && button(again.icon(), again.label(), again.run, { class: "again" }),
      button("trash", "Delete", remove, { class: "quiet" }),
    ].filter(Boolean));
  };

  const remove = () => {
    const gone = async () => {
      yes.disabled = true;
      try {
        await call("DELETE", jobPath("jobs", id));
        await drop(id);
        box.close();
        location.hash = "#/jobs";
      } catch (error) {
        yes.disabled = false;
        words.textContent = error.message;
      }
    };
    const words = el("p", null, "The job and everything that it has made are removed from the server. This cannot be undone.");
    const yes = button("trash", "Delete", gone, { class: "danger" });
    const box = dialog("Delete this job?", { class: "narrow" }, words, el("div", { class: "row end" }, button(null, "Keep it", () => box.close()), yes));
  };

  let spoken = "";
  let gone = false; // there is no such job
  const stop = follow(id, {
    status(next) {
      status = next;
      const words = status.phase ?? "";
      if (words !== spoken && phases[words]) say(phases[words]);
      spoken = words;
      if (status.status === "RUNNING") running();
      else {
        ended(status);
        end();
      }
      facing();
    },
    preview(p) {
      if (status && status.status !== "RUNNING") return;
      if (!/^image\/(png|jpeg|webp|gif)$/.test(p.content_type)) return;
      if (preview) URL.revokeObjectURL(preview);
      preview = URL.createObjectURL(new Blob([Uint8Array.from(atob(p.data), (c) => c.charCodeAt(0))], { type: p.content_type }));
      picture.src = preview;
      picture.hidden = false;
    },
    output: (out) => made.add(out),
    trouble: show,
    lost(error) {
      gone = error.status === 404;
      if (gone) temporal.replaceChildren();
      element.classList.add("ended");
      badge.textContent = error.status === 404 ? "unknown" : "error";
      badge.dataset.state = "failed";
      failed.hidden = false;
      failed.replaceChildren(icon("fail"), el("div", null,
        el("h3", null, error.status === 404 ? "There is no such job" : "The job cannot be read"),
        el("p", { class: "note" }, error.status === 404 ? "It was deleted, its time is over, or it belongs to another key." : error.message)));
      document.title = "comfyd";
    },
  });

  temporalLink(id).then((link) => {
    if (link && !gone) temporal.replaceChildren(el("a", { class: "button quiet small", href: link, target: "_blank", rel: "noopener" }, icon("link"), el("span", null, "Temporal")));
  }, () => {}); // a page without the link is whole

  return {
    element,
    // know tells the panel what the job's nodes are.
    know(all) {
      nodes = all;
      list = nodeList(nodes, edit);
      for (const before of feeding(nodes, current)) done.add(before);
      nodesBox.hidden = false;
      nodesBox.replaceChildren(el("summary", null, "Nodes ", el("span", { class: "note" }, String(Object.keys(nodes).length))), list.element);
      if (!status) return;
      if (status.status === "RUNNING") running();
      else end();
    },
    stop() {
      stop();
      if (preview) URL.revokeObjectURL(preview);
    },
  };
}

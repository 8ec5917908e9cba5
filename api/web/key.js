// The API key: asked for once, kept in this browser, forgotten on demand.

import { button, dialog, el, icon, nextId } from "./dom.js";
import { call, key, setKey } from "./http.js";
import { forgetAll } from "./kept.js";

const keyFile = document.querySelector('meta[name="comfyd-key-file"]').content;
let asking = null; // one dialog for all requests that wait for a key

// askForKey shows the dialog, unless it is open, and returns when a key was given that the server takes.
export function askForKey(refused) {
  asking ??= show(refused).finally(() => (asking = null));
  return asking;
}

function show(refused) {
  return new Promise((resolve) => {
    const field = nextId();
    const problem = el("p", { class: "problem", id: nextId(), role: "alert" }, refused ? "The server does not know this key (any more)." : "");
    const input = el("input", {
      id: field, type: "password", name: "key", required: true, autocomplete: "current-password", spellcheck: "false",
      "aria-describedby": problem.id, "aria-invalid": refused ? "true" : null,
    });
    const send = el("button", { type: "submit", class: "main" }, icon("key"), el("span", null, "Use this key"));
    const form = el("form", { class: "key-form", onsubmit: (event) => (event.preventDefault(), check()) },
      el("p", null, "This server wants an API key. It is kept in this browser, and sent to this server only."),
      keyFile && el("p", null, "Its own key was made at the first start and lies in ", el("code", null, keyFile), " on the machine that runs it (as a path from where comfyd was started). Copy it from there:"),
      keyFile && el("pre", { tabindex: "0", "aria-label": "Command that shows the key" }, `cat ${keyFile}`),
      el("input", { type: "text", autocomplete: "username", value: "comfyd", hidden: true }), // what password managers file it under
      el("label", { for: field }, "API key"), input, problem,
      el("div", { class: "row end" }, send));
    const box = dialog("API key", { class: "narrow" }, form);
    let taken = false;

    const check = async () => {
      const before = key();
      problem.textContent = "";
      send.disabled = true;
      setKey(input.value.trim());
      try {
        await call("GET", "jobs?limit=1", { asking: false });
        taken = true;
        box.close();
      } catch (error) {
        setKey(before);
        problem.textContent = error.status === 401 ? "The server does not know this key." : error.message;
        input.setAttribute("aria-invalid", "true");
        input.focus();
      }
      send.disabled = false;
    };
    // Without a key there is nothing to see: closing leaves a page that says so, with a way back.
    box.addEventListener("close", () => {
      if (taken) resolve();
      else document.getElementById("main").replaceChildren(
        el("div", { class: "empty" }, el("p", null, "Without an API key this page can show nothing."),
          button("key", "Enter the key", () => show(false).then(() => location.reload()), { class: "main" })));
    });
    input.focus();
  });
}

// showKey is the dialog behind the button in the header.
export function showKey() {
  if (!key()) {
    askForKey(false).then(() => location.reload());
    return;
  }
  const forget = async () => {
    setKey("");
    await forgetAll();
    location.assign("#/");
    location.reload();
  };
  dialog("API key", { class: "narrow" },
    el("p", null, "A key is kept in this browser, with the workflows of the jobs that were sent from it."),
    el("p", { class: "note" }, "Forgetting removes both from this browser. Jobs and their outputs stay on the server."),
    el("div", { class: "row end" }, button("trash", "Forget the key", forget, { class: "danger" })));
}

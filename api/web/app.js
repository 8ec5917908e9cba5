// The page of comfyd: a client of its HTTP API and nothing else. Addresses: #/ the form, #/jobs the list, #/jobs/<id> a job.

import { leave as leaveBench, showJob, showNew } from "./bench.js";
import { icon, say } from "./dom.js";
import { key, root, whenRefused } from "./http.js";
import { leave as leaveJobs, showJobs } from "./jobs.js";
import { askForKey, showKey } from "./key.js";
import { settings } from "./settings.js";

const main = document.getElementById("main");

whenRefused(askForKey);

// theme steps from the system's own to light and dark.
const themes = [["", "screen", "as the system"], ["light", "sun", "light"], ["dark", "moon", "dark"]];
const themeButton = document.getElementById("theme");

function showTheme() {
  const [, name, label] = themes.find(([theme]) => theme === (document.documentElement.dataset.theme ?? ""));
  themeButton.replaceChildren(icon(name));
  themeButton.title = `Colors: ${label}`;
  themeButton.setAttribute("aria-label", `Colors: ${label}`);
}

themeButton.addEventListener("click", () => {
  const now = themes.findIndex(([theme]) => theme === (document.documentElement.dataset.theme ?? ""));
  const [next, , label] = themes[(now + 1) % themes.length];
  if (next) document.documentElement.dataset.theme = next;
  else delete document.documentElement.dataset.theme;
  try {
    if (next) localStorage.setItem("comfyd.theme", next);
    else localStorage.removeItem("comfyd.theme");
  } catch {
    // It lasts as long as the page, then.
  }
  showTheme();
  say(`Colors: ${label}.`);
});
showTheme();

const keyButton = document.getElementById("key");
keyButton.append(icon("key"));
keyButton.setAttribute("aria-label", "API key");
keyButton.title = "API key";
keyButton.addEventListener("click", showKey);

// Not an address of the page.
document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});

function route() {
  leaveBench();
  leaveJobs();
  const job = /^#\/jobs\/(.+)$/.exec(location.hash);
  const list = location.hash === "#/jobs";
  document.getElementById("nav-new").ariaCurrent = !job && !list ? "page" : null;
  document.getElementById("nav-jobs").ariaCurrent = job || list ? "page" : null;
  scrollTo(0, 0);
  document.title = list ? "Jobs · comfyd" : "comfyd";
  if (job) showJob(main, decodeURIComponent(job[1]));
  else if (list) showJobs(main);
  else showNew(main);
}

// /jobs/<id> is where links from elsewhere lead; from there on the page keeps to its own addresses.
if (location.hash === "" && location.pathname !== root.pathname) {
  history.replaceState(null, "", new URL(`#${location.pathname.slice(root.pathname.length - 1)}`, root));
}
addEventListener("hashchange", route);
// A key comes first: nobody should write a prompt in vain. One that the server no longer knows shows with the first call.
(key() ? Promise.resolve() : askForKey(false)).then(settings).then(route, route);

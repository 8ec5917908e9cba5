// What the page says about phases, codes, times and sizes.

export const phases = {
  warming: "Waiting for a backend",
  queued: "Waiting in the queue",
  running: "Running",
  collecting: "Storing the outputs",
  canceling: "Canceling",
};

const titles = {
  invalid_workflow: "ComfyUI cannot run this workflow",
  node_failed: "A node failed",
  out_of_memory: "Out of memory",
  timeout: "Out of time",
  canceled: "Canceled",
  backend_lost: "The ComfyUI that ran it died",
  backend_unavailable: "No ComfyUI could run it",
  output_lost: "An output was lost",
  storage: "The outputs could not be stored",
  internal: "A fault of comfyd",
};

export const failure = (code) => titles[code] ?? "Failed";

const cures = {
  invalid_workflow: "Correct the inputs that are marked and run it again. What a value may be stands beside each.",
  node_failed: "Look at the inputs of the node that is marked, and at what feeds it. If it failed for no fault of the workflow, run it again.",
  out_of_memory: "Make the picture or the batch smaller, use a tiled or quantized variant, or choose a larger GPU under Options.",
  timeout: "Raise the time limit under Options, or make the work smaller.",
  canceled: "Nothing is left running. Run it again whenever you like.",
  backend_lost: "It died three times with this job, which often means too little memory. Try a smaller picture or batch.",
  backend_unavailable: "Look at what each backend says above; whoever runs this server can start one. The job can be sent again then.",
  output_lost: "It ran, but a file could not be fetched whole. Run it again.",
  storage: "Whoever runs this server should look at its store: it may be full. Then run the job again.",
  internal: "Run it again. If it fails again, the server's log tells more under the job's ID.",
};

export const cure = (code) => cures[code] ?? "";

export const codes = Object.keys(titles);

// seconds words a length of time.
export function duration(ms) {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const s = ms / 1000;
  if (s < 60) return `${s < 10 ? s.toFixed(1) : Math.round(s)} s`;
  const minutes = Math.floor(s / 60);
  return minutes < 60 ? `${minutes} min ${Math.round(s % 60)} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

export function bytes(n) {
  if (n < 1000) return `${n} B`;
  const units = ["kB", "MB", "GB", "TB"];
  let i = -1;
  do {
    n /= 1000;
    i++;
  } while (n >= 999.5 && i < units.length - 1);
  return `${n < 10 ? n.toFixed(1) : Math.round(n)} ${units[i]}`;
}

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const date = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "medium" });

// when is short for today and longer for other days.
export function when(text) {
  const at = new Date(text);
  return at.toDateString() === new Date().toDateString() ? clock.format(at) : date.format(at);
}

export const exactly = (text) => full.format(new Date(text));

export const plural = (n, one, many = `${one}s`) => `${n} ${n === 1 ? one : many}`;

export const shortId = (id) => (/^[0-9a-f]{8}-[0-9a-f-]{27}$/.test(id) ? id.slice(0, 8) : id);

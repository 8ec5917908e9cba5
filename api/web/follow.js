// Follows a job to its end: by server-sent events where the API offers them (events_url), by polling otherwise and whenever
// events fail.

import { call, Failure, jobPath, own } from "./http.js";

const pollEvery = 1; // seconds that a status waits for the job's end, so that progress is seen meanwhile
const hiddenEvery = 30; // in a tab that nobody sees
const eventsAgain = 15_000; // after events have failed

// follow calls on.status with each status, the last one included, on.preview with each preview picture, on.output with each
// output that is ready before the end, and on.trouble with what keeps it from knowing more, null when that is over. It
// returns what ends it.
export function follow(id, on) {
  const life = new AbortController();
  let events = null;
  let failedAt = -Infinity;

  const stop = () => {
    life.abort();
    events?.close();
  };

  const pause = (ms) =>
    new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      life.signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
    });

  const take = (status) => {
    on.trouble(null);
    on.status(status);
    return status.status !== "RUNNING";
  };

  // listen resolves to true when the job has ended, and to false when events are of no use.
  const listen = (link) =>
    new Promise((resolve) => {
      events = new EventSource(own(link));
      const end = (ended) => {
        events.close();
        if (!ended) failedAt = performance.now();
        resolve(ended);
      };
      const handle = (name, what) => events.addEventListener(name, (event) => !life.signal.aborted && what(JSON.parse(event.data)));
      handle("status", (status) => take(status) && end(true));
      handle("preview", on.preview);
      handle("output", on.output);
      handle("done", (status) => end(take(status)));
      events.onerror = () => {
        if (events.readyState === EventSource.CLOSED) end(false);
        else on.trouble("The connection was lost. Connecting again ...");
      };
      life.signal.addEventListener("abort", () => end(true), { once: true });
    });

  const run = async () => {
    let wait = 0;
    let failures = 0;
    while (!life.signal.aborted) {
      try {
        const status = await call("GET", `${jobPath("status", id)}?output=url&wait=${wait}`, { signal: life.signal });
        failures = 0;
        if (take(status)) return;
        if (status.events_url && performance.now() - failedAt > eventsAgain && (await listen(status.events_url))) return;
        wait = document.hidden ? hiddenEvery : pollEvery;
      } catch (error) {
        if (life.signal.aborted) return;
        if (!(error instanceof Failure)) throw error;
        if (error.status >= 400 && error.status < 500 && error.status !== 408 && error.status !== 429) {
          on.lost(error);
          return;
        }
        on.trouble(`${error.message} Trying again ...`);
        await pause(Math.min(500 * 2 ** failures++, 10_000));
        wait = 0;
      }
    }
  };
  run();
  return stop;
}

// What the server tells the page about itself, once: GET /page.json.

import { call } from "./http.js";

let asked = null;

export const settings = () => (asked ??= call("GET", "page.json").catch((error) => ((asked = null), Promise.reject(error))));

const loopback = /^(localhost|127(\.\d+){3}|\[::1\])$/;

// temporalLink leads to a job in the Temporal UI, null where this browser cannot reach one.
export async function temporalLink(id) {
  const { temporal_ui: ui, temporal_namespace: namespace } = await settings();
  if (!ui || (loopback.test(new URL(ui).hostname) && !loopback.test(location.hostname))) return null;
  return `${ui.replace(/\/$/, "")}/namespaces/${encodeURIComponent(namespace)}/workflows/${encodeURIComponent(id)}`;
}

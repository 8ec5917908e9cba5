// The call that the form makes, in other languages. The key is a placeholder.

import { copyButton, dialog, el } from "./dom.js";
import { root } from "./http.js";
import { stringify } from "./json.js";

const base = root.href.replace(/\/$/, "");

// Characters that end a raw string of Go or JavaScript stand as JSON's own escapes; outside of JSON's strings there are none.
const raw = (body) => body.replaceAll("`", "\\u0060").replaceAll("${", "\\u0024{");

const writers = {
  curl: (body) => `# The key: COMFYD_API_KEY
ID=$(curl -sS ${base}/submit_workflow \\
  -H "Authorization: Bearer $COMFYD_API_KEY" \\
  -H "Content-Type: application/json" \\
  --data-binary @- <<'JSON' | jq -r .id
${body}
JSON
)

# Holds until the job ends, 60 s at most: repeat it while the status is RUNNING.
curl -sS -H "Authorization: Bearer $COMFYD_API_KEY" "${base}/status/$ID?wait=60&output=url"
`,

  Python: (body) => `import os
import time

import requests  # pip install requests

URL = ${JSON.stringify(base)}
session = requests.Session()
session.headers["Authorization"] = "Bearer " + os.environ["COMFYD_API_KEY"]

body = r"""
${body}
"""
answer = session.post(URL + "/submit_workflow", data=body.encode(), headers={"Content-Type": "application/json"})
job = answer.json()
if answer.status_code != 202:
    raise SystemExit(job["error"])

while job["status"] == "RUNNING":
    time.sleep(0.2)
    job = session.get(f"{URL}/status/{job['id']}?wait=60&output=url").json()

if job["status"] == "FAILED":
    raise SystemExit(f"{job['code']}: {job['error']}")
for image in job["output"]["images"]:
    with open(image["filename"], "wb") as file:
        file.write(requests.get(image["url"]).content)
    print(image["filename"])
`,

  JavaScript: (body) => `// Node 18 or newer, as a module (.mjs). A server's own code: a key does not belong into a public page.
import { writeFile } from "node:fs/promises";

const url = ${JSON.stringify(base)};
const headers = { Authorization: \`Bearer \${process.env.COMFYD_API_KEY}\`, "Content-Type": "application/json" };

// As text, so that long seeds keep their digits.
const body = String.raw\`
${raw(body)}
\`;

const answer = await fetch(url + "/submit_workflow", { method: "POST", headers, body });
let job = await answer.json();
if (answer.status !== 202) throw new Error(job.error);

while (job.status === "RUNNING") {
  job = await (await fetch(\`\${url}/status/\${job.id}?wait=60&output=url\`, { headers })).json();
}
if (job.status === "FAILED") throw new Error(\`\${job.code}: \${job.error}\`);

for (const image of job.output.images) {
  const file = await fetch(image.url);
  await writeFile(image.filename, Buffer.from(await file.arrayBuffer()));
  console.log(image.filename);
}
`,

  Go: (body, request) => `package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"

	"github.com/comfyd/comfyd/client"
)

const body = \`
${raw(body)}
\`

func main() {
	ctx := context.Background()
	var request client.SubmitRequest
	if err := json.Unmarshal([]byte(body), &request); err != nil {
		log.Fatal(err)
	}
	c := client.New(${JSON.stringify(base)}, os.Getenv("COMFYD_API_KEY"))
	job, err := c.Submit(ctx, request)
	if err != nil {
		log.Fatal(err)
	}
	status, err := c.Wait(ctx, job.ID, nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := status.Err(); err != nil {
		log.Fatal(err) // why the job failed
	}
	saved, err := c.Save(ctx, status, ".")
	for _, file := range saved {
		fmt.Println(file.Path)
	}
	if err != nil {
		log.Fatal(err)
	}
}
`,
};

export const languages = Object.keys(writers);

// write is the program that sends this request.
export const write = (language, request) => writers[language](stringify(request, 2), request);

// showCode opens the dialog with the call in each language.
export function showCode(request) {
  const code = el("code");
  const tabs = languages.map((language) =>
    el("button", {
      type: "button", role: "tab", id: `tab-${language}`, "aria-controls": "code-panel",
      onclick: () => choose(language),
      onkeydown: (event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (!step) return;
        const next = languages[(languages.indexOf(language) + step + languages.length) % languages.length];
        choose(next);
        document.getElementById(`tab-${next}`).focus();
      },
    }, language));
  const panel = el("pre", { id: "code-panel", role: "tabpanel", tabindex: "0" }, code);
  const choose = (language) => {
    code.textContent = write(language, request);
    panel.setAttribute("aria-labelledby", `tab-${language}`);
    panel.scrollTop = 0;
    for (const tab of tabs) {
      const on = tab.id === `tab-${language}`;
      tab.setAttribute("aria-selected", String(on));
      tab.tabIndex = on ? 0 : -1;
    }
  };
  choose(languages[0]);
  dialog("The same call as code", { class: "wide code" },
    el("div", { class: "tabs" },
      el("div", { role: "tablist", "aria-label": "Language" }, tabs),
      copyButton("Copy", () => code.textContent, { id: "copy-code" })),
    panel,
    el("p", { class: "note" }, "The key is read from the environment variable ", el("code", null, "COMFYD_API_KEY"), "."));
}

"""Opens what comfyd's jobs have made, and uploads what they are to read: a few lines of HTTP with an API key."""

import hashlib
import json
import os
import urllib.parse
import urllib.request

from temporalio import activity


def call(method, path, body=None):
    request = urllib.request.Request(
        os.environ.get("COMFYD_URL", "http://127.0.0.1:8080") + path,
        data=body,
        method=method,
        headers={"Authorization": "Bearer " + os.environ["COMFYD_API_KEY"], "Content-Type": "application/octet-stream"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read()


def read(output):
    """The bytes of one of a result's images or files. `ref` is its path."""
    raw = call("GET", "/" + urllib.parse.quote(output["ref"]))
    if hashlib.sha256(raw).hexdigest() != output["sha256"]:
        raise IOError(output["filename"] + " did not arrive whole")
    return raw


def upload(name, raw):
    """What it returns goes into `images` of a job; its `ref` alone may be a job's `workflow_ref`."""
    return json.loads(call("POST", "/inputs?name=" + urllib.parse.quote(name), raw))


@activity.defn
def pick(outputs: list[dict]) -> dict:
    """Chooses the picture with the most detail: of PNGs of one size, the one with the most bytes."""
    return max(outputs, key=lambda output: len(read(output)))

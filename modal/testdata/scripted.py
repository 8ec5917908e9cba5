"""An app with the wire of modal_comfy_api.py and no ComfyUI, for the Go tests: what a call does stands in its job_id, as JSON.

{"sleep": s}            shows progress, then waits
{"until": path}         shows progress, then waits until there is a file
{"stubborn": true}      and does not stop when it is cancelled
{"raise": "StartFailed", "text": "..."}   raises an exception of that class
{"size": n}             the size of the one output file
{"end": {...}}          a manifest in place of the usual one
{"raw": x}              returns x itself
{"mute": true}          says nothing on the progress channel
{"preview": x}          shows it there
{"missing": "why"}      the output file could not be read
{"corrupt": true}       the file's bytes are not those that the manifest announces
"""

import gzip
import hashlib
import json
import os
import time

import modal

name = os.environ.get("MODAL_APP", "scripted")
app = modal.App(name)
image = modal.Image.debian_slim(python_version="3.11").env({"MODAL_APP": name})
ledger = modal.Dict.from_name(f"{name}-ledger", create_if_missing=True)
progress = modal.Queue.from_name(f"{name}-progress", create_if_missing=True)
volume = modal.Volume.from_name(f"{name}-models", create_if_missing=True)

FAILURES = {c: type(c, (Exception,), {}) for c in ("StartFailed", "BackendLost", "Stalled", "ValueError")}


@app.cls(
    image=image,
    gpu="L40S",
    cpu=2.5,
    memory=2048,
    timeout=3600,
    scaledown_window=60,
    max_containers=2,
    volumes={"/models": volume},
)
class ComfyUI:
    @modal.method()
    def run(self, workflow_json: str, job_id: str, options_json: str = "{}", inputs: list | None = None) -> bytes:
        options, do, started = json.loads(options_json), {}, time.time()
        try:
            do = json.loads(job_id)
        except ValueError:
            pass
        prompt_id, call_id = options["prompt_id"], modal.current_function_call_id()
        if not ledger.put(prompt_id, call_id, skip_if_exists=True):
            other = ledger[prompt_id]
            if other == "":
                return payload({"end": "barred"})
            if other != call_id:
                return payload({"end": "duplicate", "call_id": other})
        if "sleep" in do or "until" in do:
            events = [
                {"type": "executing", "data": {"node": "1", "prompt_id": prompt_id}},
                {"type": "progress", "data": {"node": "1", "value": 1, "max": 4, "odd": float("nan")}},
            ]
            try:  # the put, too: a cancel may arrive before its reply
                if not do.get("mute"):
                    item = {"t": 0, "seq": 1, "running": True, "preview": do.get("preview"), "events": events}
                    progress.put(json.dumps(item), partition=prompt_id)
                rest(do)
            except BaseException:
                if not do.get("stubborn"):
                    raise
                rest(do)
        if "raise" in do:
            raise FAILURES[do["raise"]](do.get("text", "no reason"))
        if "raw" in do:
            return do["raw"]
        if "end" in do:
            return payload(do["end"])
        data = os.urandom(do.get("size", 100))
        file = {"folder": "output", "subfolder": "", "filename": "a_00001_.png", "size": len(data), "offset": 0}
        file["sha256"] = hashlib.sha256(data).hexdigest()
        if "missing" in do:
            file, data = {k: file[k] for k in ("folder", "subfolder", "filename")} | {"missing": do["missing"]}, b""
        if do.get("corrupt"):
            data = bytes(len(data))
        status = {
            "status_str": "success",
            "completed": True,
            "messages": [["execution_success", {"timestamp": int(time.time() * 1000)}]],
        }
        images = [{"filename": "a_00001_.png", "subfolder": "", "type": "output"}]
        manifest = {
            "end": "history",
            "started_ms": int(started * 1000),
            "ended_ms": int(time.time() * 1000),
            "history": {"outputs": {"2": {"images": images}}, "status": status},
            "errors": [],
            "files": [file],
            "frames": [],
            "frames_gap": False,
            "got": {"workflow": workflow_json, "options": options, "inputs": [[p, len(b)] for p, b in inputs or []]},
        }
        return payload(manifest, data)

    @modal.method()
    def warm(self) -> str:
        if os.environ.get("SCRIPTED_WARM_FAILS"):
            raise FAILURES["StartFailed"](
                "ComfyUI did not come up: no module named torch\n--- log ---\n/opt/comfyui/main.py: boom"
            )
        return json.dumps(container())


def rest(do: dict) -> None:
    time.sleep(do.get("sleep", 0))
    while "until" in do and not os.path.exists(do["until"]):
        time.sleep(0.02)


def container() -> dict:
    return {"id": os.environ.get("MODAL_TASK_ID", ""), "gpu": "NVIDIA L40S", "version": "0.39.2", "cold_start_ms": 1234}


def payload(manifest: dict, data: bytes = b"") -> bytes:
    return json.dumps({"v": 1, "container": container()} | manifest).encode() + b"\n" + data


def node(output: bool, returns: list, **inputs: object) -> dict:
    return {"input": {"required": inputs}, "output": returns, "output_node": output, "python_module": "nodes"}


@app.function(image=image, volumes={"/models": volume})
def catalog() -> bytes:
    integer = ["INT", {"default": 1, "min": 1, "max": 4096}]
    info = {
        "EmptyImage": node(
            False,
            ["IMAGE"],
            width=integer,
            height=integer,
            batch_size=integer,
            color=["INT", {"min": 0, "max": 0xFFFFFF}],
        ),
        "SaveImage": node(True, [], images=["IMAGE"], filename_prefix=["STRING", {"default": "ComfyUI"}]),
        "Loader": (
            node(
                False,
                ["IMAGE"],
                model=[sorted(os.listdir(os.environ.get("SCRIPTED_MODELS", "/nonexistent")) or ["none"]), {}],
            )
            if os.environ.get("SCRIPTED_MODELS")
            else node(False, ["IMAGE"], odd=["FLOAT", {"max": float("inf")}])
        ),
    }
    settings = {"gpu": "L40S", "cpu": 2.5, "memory": 2048, "timeout": 3600, "volume": f"{name}-models"}
    return gzip.compress(
        json.dumps(
            {"version": "0.39.2", "object_info": info, "settings": settings, "models": [], "missing": []}
        ).encode()
    )


@app.function(image=image)
def locate(prompt_id: str, bar: bool = False) -> str:
    if bar:
        ledger.put(prompt_id, "", skip_if_exists=True)
    return ledger.get(prompt_id, "") or ""

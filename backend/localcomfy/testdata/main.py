"""Stands in for ComfyUI: takes its options, answers the calls by which comfyd knows that it lives, and misbehaves as
the file "mode" beside it says."""
import argparse, json, os, signal, subprocess, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

here = os.path.dirname(os.path.abspath(__file__))
parser = argparse.ArgumentParser()
for name in ("listen", "input-directory", "output-directory", "temp-directory", "user-directory", "mark"):
    parser.add_argument("--" + name)
parser.add_argument("--port", type=int)
parser.add_argument("--disable-auto-launch", action="store_true")
parser.add_argument("--cpu", action="store_true")
args = parser.parse_args()


def mode():
    try:
        return open(os.path.join(here, "mode")).read()
    except FileNotFoundError:
        return ""


json.dump({"env": dict(os.environ), "argv": sys.argv, "cwd": os.getcwd()}, open(os.path.join(here, "seen"), "w"))
if mode() == "dies":
    for i in range(40):
        print("line", i, file=sys.stderr)
    sys.exit(3)
if mode() == "never ready":
    print("loading for ever", flush=True)
    time.sleep(1000)
while mode() == "loading":
    time.sleep(0.05)


def terminated(*_):
    open(os.path.join(here, "terminated"), "w").close()
    if mode() != "stubborn":
        os._exit(0)


signal.signal(signal.SIGTERM, terminated)
grandchild = subprocess.Popen(["sleep", "1000"])
open(os.path.join(here, "grandchild"), "w").write(str(grandchild.pid))
text = ["STRING", {"default": ""}]
ANSWERS = {
    "/prompt": {"exec_info": {"queue_remaining": 0}},
    "/queue": {"queue_running": [], "queue_pending": []},
    "/system_stats": {"system": {"comfyui_version": "0.0.1"}, "devices": [{"name": "cpu", "type": "cpu"}]},
    "/object_info": {"PreviewAny": {"input": {"required": {"source": text}}, "output": [], "output_node": True, "name": "PreviewAny"}},
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        while mode() == "silent":
            time.sleep(0.05)
        body = json.dumps(ANSWERS.get(self.path, {})).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


print("answering", flush=True)
ThreadingHTTPServer((args.listen, args.port), Handler).serve_forever()

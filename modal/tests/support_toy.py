"""A program that starts, answers and ends as ComfyUI does, in a fraction of a second and as a test wants it."""

import sys
from pathlib import Path

from comfyd_modal.place import Place

MAIN = """
import http.server, json, os, sys, time
args = sys.argv[1:]
print("toy starts with", args, flush=True)
HOOK
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({
            "system": {"comfyui_version": "0.0.1", "argv": sys.argv},
            "devices": [{"name": "cuda:0 NVIDIA L40S : cudaMallocAsync", "type": "cuda"}],
            "env": dict(os.environ), "modules": sorted(sys.modules), "stdin": sys.stdin.read(),
        }).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
http.server.HTTPServer(("127.0.0.1", int(args[args.index("--port") + 1])), Handler).serve_forever()
"""


def toy(folder: Path, hook: str = "", torch_package: str = "", **more: object) -> Place:
    """Makes the program; `hook` is code before it listens, `torch_package` what a module torchvision does."""
    folder.mkdir()
    (folder / "main.py").write_text(MAIN.replace("HOOK", hook))
    (folder / "comfy").mkdir()
    (folder / "comfy" / "options.py").write_text(
        "def enable_args_parsing():\n    import sys; sys.modules['toy_parsed'] = sys\n"
    )
    allocator = "import os\nos.environ['PYTORCH_CUDA_ALLOC_CONF'] = 'backend:toy'\n"
    (folder / "cuda_malloc.py").write_text(allocator)
    torch = folder / "torch"
    torch.mkdir()
    (torch / "__init__.py").write_text(
        "import os\nfrom . import _C\nallocator = os.environ.get('PYTORCH_CUDA_ALLOC_CONF')\n"
    )
    (torch / "_C.py").write_text("def _cuda_getDeviceCount():\n    return 1\n\ndef _cuda_init():\n    pass\n")
    if torch_package:
        (folder / "torchvision.py").write_text(f"import torch\n{torch_package}\n")
    return Place(folder, sys.executable, folder.parent / "work", startup_timeout=120, **more)  # type: ignore[arg-type]

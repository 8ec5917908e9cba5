"""Becomes ComfyUI, if wanted with the slow imports done beforehand.

It runs with ComfyUI's interpreter, as a script of its own (standard library only):

    python launcher.py COMFYUI_DIR [--preload ARGUMENTS_OF_MAIN_PY...]

With --preload it imports what ComfyUI will import and what does not touch CUDA, and prints PRELOADED. That is the state
in which Modal takes its CPU memory snapshot: there is no GPU at that time, and ComfyUI's own modules ask for one as
soon as they are imported. Then, or at once without --preload, it waits for one line of JSON on stdin, {"args": [...],
"env": {...}}, prints STARTING, and runs main.py with these arguments and this environment.

Exit status 3: a module has asked for CUDA while it was imported ahead; what it believes now would be wrong once there
is a GPU, so that ComfyUI must be started without --preload.
"""

import ctypes
import importlib
import json
import os
import random
import runpy
import signal
import sys
import time

MARK = "comfyd-launcher: "
PRELOADED = MARK + "preloaded"
STARTING = MARK + "starting"
TOUCHED_CUDA = 3

# What ComfyUI 0.15.1 and the node packs of nodes.toml spend their start on (python -X importtime). torch comes first: the
# others ask for it. Those that are not installed are passed over.
MODULES = (
    "torch",
    "numpy",
    "PIL.Image",
    "torchvision",
    "torchaudio",
    "transformers",
    "transformers.modeling_utils",
    "transformers.models.clip.tokenization_clip",
    "transformers.models.t5.tokenization_t5_fast",
    "transformers.models.qwen2.tokenization_qwen2",
    "scipy.special",
    "scipy.integrate",
    "scipy.optimize",
    "scipy.signal",
    "scipy.stats",
    "torchsde",
    "safetensors.torch",
    "einops",
    "kornia.filters",
    "spandrel",
    "av",
    "aiohttp.web",
    "pydantic_settings",
    "sqlalchemy.orm",
    "alembic.command",
    "requests",
    "yaml",
    "psutil",
    "tqdm.auto",
    "cv2",
    "matplotlib.pyplot",
    "skimage",
    "pandas",
    "numba",
    "sklearn",
    "timm",
    "open_clip",
    "pytorch_lightning",
    "hydra.utils",
)

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent() -> None:
    """Asks Linux to kill this process when the thread that started it ends: ComfyUI never outlives its runner."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(os.environ["COMFYD_RUNNER_PID"]):  # it ended before we asked
        sys.exit("the process that started this one is gone")


def choose_allocator(folder: str, args: list[str]) -> None:
    """Lets ComfyUI's cuda_malloc.py set PYTORCH_CUDA_ALLOC_CONF, as main.py does before anything imports torch.

    torch reads the allocator's name from it while its library is loaded, so that later is too late. The modules are
    forgotten again: main.py imports them anew, with the arguments it is given then.
    """
    before = set(sys.modules)
    sys.argv = ["main.py", *args]
    importlib.import_module("comfy.options").enable_args_parsing()
    importlib.import_module("cuda_malloc")
    for name in set(sys.modules) - before:
        module = sys.modules[name]
        if (getattr(module, "__file__", None) or "").startswith(os.path.join(folder, "")):
            del sys.modules[name]


def preload() -> tuple[list[str], str]:
    """Imports MODULES without letting any reach CUDA; returns those that are there, and the one that tried to."""
    culprit = ""
    loaded: list[str] = []
    current = ""
    real: dict[str, object] = {}
    core = None

    def count(*_: object) -> int:
        nonlocal culprit
        culprit = culprit or current
        return 0

    def init(*_: object) -> None:
        nonlocal culprit
        culprit = culprit or current
        raise RuntimeError("no CUDA while modules are imported ahead")

    for current in MODULES:
        try:
            importlib.import_module(current)
        except Exception as e:  # a broken package is ComfyUI's to report
            if not isinstance(e, ModuleNotFoundError):
                print(f"{MARK}{current} cannot be imported: {e!r}", flush=True)
            continue
        loaded.append(current)
        if current == "torch":
            # One failed call to the CUDA driver, made while there is no GPU, is remembered by this process for good.
            core = sys.modules["torch._C"]
            for name, guard in (("_cuda_getDeviceCount", count), ("_cuda_init", init)):
                if hasattr(core, name):
                    real[name] = getattr(core, name)
                    setattr(core, name, guard)
    for name, value in real.items():
        setattr(core, name, value)
    return loaded, culprit


def main() -> None:
    """Runs as the module's docstring says."""
    folder = os.path.abspath(sys.argv[1])
    die_with_parent()
    # Python has put this file's folder first; ComfyUI has modules of the same names as those in it.
    sys.path[0] = folder
    os.chdir(folder)
    if sys.argv[2:3] == ["--preload"]:
        began = time.monotonic()
        choose_allocator(folder, sys.argv[3:])
        allocator = os.environ.get("PYTORCH_CUDA_ALLOC_CONF")
        loaded, culprit = preload()
        if culprit:
            print(f"{MARK}{culprit} asks for CUDA when it is imported; it must not be in MODULES", flush=True)
            sys.exit(TOUCHED_CUDA)
        print(
            f"{PRELOADED} {len(loaded)} modules in {time.monotonic() - began:.1f} s; CUDA allocator: {allocator}",
            flush=True,
        )
        print(f"{MARK}ComfyUI's warning that torch was imported already is expected", flush=True)
    line = sys.stdin.readline()
    if not line:
        sys.exit("the runner has gone away")
    order = json.loads(line)
    os.environ.clear()
    os.environ.update(order["env"])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    # Each container restored from one snapshot would draw the same numbers.
    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
    print(f"{STARTING} ComfyUI", flush=True)
    sys.argv = ["main.py", *order["args"]]
    runpy.run_path(os.path.join(folder, "main.py"), run_name="__main__")


if __name__ == "__main__":
    main()

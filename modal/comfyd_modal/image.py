"""The images of the app: one with ComfyUI and its packs, and a slim one for what needs neither.

comfy-cli 1.23.0 installs into the environment of VIRTUAL_ENV if that is set, else beside ComfyUI (.venv), else into the
interpreter it runs with (comfy_cli/resolve_python.py). It is set, so that ComfyUI has an interpreter of its own and
cannot disturb what Modal's functions import. Everything Python comes from requirements.lock before; comfy-cli is told
to leave it alone.
"""

from pathlib import Path

import modal

from . import models, nodes
from .models import Models
from .nodes import Nodes
from .settings import Settings

HERE = Path(__file__).resolve().parent
LOCK = HERE.parent / "requirements.lock"

PYTHON = "3.11"
UV = "0.13.9"
RUNTIME = ("aiohttp==3.14.5", "requests==2.34.2")  # of the app's own code

MODELS = "/models"
COMFYUI = "/opt/ComfyUI"
VENV = "/opt/comfyui-venv"
CHECK = "/opt/comfyd-check"  # verify_nodes, what it needs, and what it found
REPORT = f"{CHECK}/report.json"

# Without these OpenCV, WAS Node Suite (videos) and git installs fail.
DEBIAN = ("git", "ffmpeg", "libgl1", "libglib2.0-0")

TOOLS_ENVIRONMENT = {
    "VIRTUAL_ENV": VENV,
    "DO_NOT_TRACK": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "WAS_BLOCK_AUTO_INSTALL": "1",  # WAS Node Suite else runs pip in the midst of a prompt
}


def slim(settings: Settings) -> modal.Image:
    """Python and the app's code."""
    return _with_code(_base(), settings)


def with_models(settings: Settings, listed: Models, volume: modal.Volume, secret: modal.Secret) -> modal.Image:
    """The slim image, whose build downloads the listed models to the Volume.

    Modal runs a build step again only when it has changed, and the list is an argument of it. So an unchanged list does
    not fill a Volume that was emptied; the function download_models does.
    """
    from .jobs import download_listed  # here, because jobs is for containers

    downloaded = _base().run_function(
        download_listed,
        kwargs={"entries": models.to_entries(listed.models), "volume": settings.volume},
        secrets=[secret],
        volumes={MODELS: volume},
        cpu=4,
        memory=4096,
        timeout=6 * 3600,
    )
    return _with_code(downloaded, settings)


def comfyui(settings: Settings, listed: Nodes) -> modal.Image:
    """ComfyUI with its packs, each of them checked: the build fails and names the pack that does not work."""
    image = (
        _base()
        .apt_install(*DEBIAN)
        .uv_pip_install(f"comfy-cli=={listed.comfy_cli}", f"uv=={UV}", uv_version=UV)  # uv for python_commands
        .env(TOOLS_ENVIRONMENT)
        .add_local_file(LOCK, f"{CHECK}/requirements.lock", copy=True)
        .run_commands(*python_commands(f"{CHECK}/requirements.lock"))
        .run_commands(comfyui_command(listed))
    )
    for pack in listed.packs:  # a layer each: a changed pack rebuilds from there on
        image = image.run_commands(*nodes.commands(pack, COMFYUI))
    for name in ("__init__.py", "nodes.py", "verify_nodes.py"):
        image = image.add_local_file(HERE / name, f"{CHECK}/comfyd_modal/{name}", copy=True)
    image = image.add_local_file(nodes.LIST, f"{CHECK}/{nodes.LIST.name}", copy=True).run_commands(verify_command())
    return _with_code(image, settings)


def python_commands(lock: str) -> list[str]:
    """The commands that make ComfyUI's environment from the lock.

    sam-2 builds with the torch that is there already, and without its CUDA extension, for which the image has no
    compiler (INSTALL.md: it is optional). --seed because node packs ask pip what is installed.
    """
    install = f"uv pip install --python {VENV}/bin/python --compile-bytecode"
    return [
        f"uv venv --seed --python $(command -v python) {VENV}",
        f"{install} --constraint {lock} torch torchvision torchaudio setuptools wheel",
        f"SAM2_BUILD_CUDA=0 {install} --no-build-isolation-package sam-2 --requirement {lock}",
    ]


def comfyui_command(listed: Nodes) -> str:
    """The command that gets ComfyUI. Its manager, which `comfy node install` needs, is in the lock."""
    return (
        f"comfy --skip-prompt --workspace {COMFYUI} install --version {listed.comfyui} --nvidia "
        "--skip-torch-or-directml --skip-requirement --skip-manager"
    )


def verify_command() -> str:
    """The command that checks ComfyUI and its packs."""
    return (
        f"cd {CHECK} && python -m comfyd_modal.verify_nodes --comfyui {COMFYUI} --python {VENV}/bin/python "
        f"--report {REPORT}"
    )


def _base() -> modal.Image:
    return modal.Image.debian_slim(python_version=PYTHON).uv_pip_install(*RUNTIME, uv_version=UV)


def _with_code(image: modal.Image, settings: Settings) -> modal.Image:
    places = {
        "COMFYD_COMFYUI_DIR": COMFYUI,
        "COMFYD_COMFYUI_PYTHON": f"{VENV}/bin/python",
        "COMFYD_MODELS_DIR": MODELS,
        "COMFYD_NODE_REPORT": REPORT,
        "COMFYD_WORK_DIR": "/tmp/comfyd",
    }
    # Last, because it changes most often. /root is where Modal puts the app's file, so the lists lie as they do here.
    return (
        image.env({**settings.environment(), **places})
        .add_local_python_source("comfyd_modal")
        .add_local_file(nodes.LIST, f"/root/{nodes.LIST.name}")
        .add_local_file(models.LIST, f"/root/{models.LIST.name}")
    )

"""What can be known of the app without an account. Go tests the deploy itself, against a fake of Modal."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from comfyd_modal import image, models, nodes
from comfyd_modal.settings import Settings

APP = Path(__file__).resolve().parent.parent


def run(*command: str, cwd: Path, **env: str) -> subprocess.CompletedProcess:
    """A Python without an account, a config file or the network's names."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MODAL_", "COMFYD_", "PYTHON"))}
    clean |= {"HOME": "/nonexistent", "MODAL_CONFIG_PATH": "/nonexistent/modal.toml", **env}
    return subprocess.run([sys.executable, *command], cwd=cwd, env=clean, capture_output=True, text=True, timeout=300)


def test_it_imports_without_an_account_from_its_folder_and_from_elsewhere(tmp_path):
    assert run("-c", "import modal_comfy_api", cwd=APP).stderr == ""
    code = "import runpy, sys; sys.path[0] = sys.argv[1]; runpy.run_path(sys.argv[1] + '/modal_comfy_api.py')"
    for folder in (tmp_path, APP.parent):  # the folder called modal beside us is not the SDK
        done = run("-c", code, str(APP), cwd=folder)
        assert done.returncode == 0, done.stderr


def test_it_imports_as_it_lies_in_a_container(tmp_path):
    """There are the app's file, the package's Python files and the lists, and no lock."""
    shutil.copy(APP / "modal_comfy_api.py", tmp_path)
    for file in image.HERE.glob("*.py"):
        (tmp_path / "comfyd_modal").mkdir(exist_ok=True)
        shutil.copy(file, tmp_path / "comfyd_modal")
    for list_ in (nodes.LIST, models.LIST):
        shutil.copy(list_, tmp_path)
    done = run("-c", "import modal_comfy_api", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("env", "line"),
    [
        ({"COMFYD_MODAL_GPU": "NOPE"}, "comfyd: COMFYD_MODAL_GPU='NOPE' is not possible: one of T4,"),
        ({"COMFYD_MODAL_TIMEOUT": "100000"}, "comfyd: COMFYD_MODAL_TIMEOUT='100000' is not possible: a whole number"),
    ],
)
def test_a_wrong_setting_stops_the_deploy_with_one_line(env, line):
    done = run("-m", "modal", "deploy", str(APP / "modal_comfy_api.py"), cwd=APP, **env)
    assert done.returncode != 0
    assert done.stderr.startswith(line) and len(done.stderr.splitlines()) == 1, done.stderr


def test_each_setting_is_read_in_one_place_only():
    readers = []
    for file in [APP / "modal_comfy_api.py", *image.HERE.glob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            if (
                isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and node.value in Settings().environment()
            ):
                readers.append(file.name)
    assert set(readers) == {"settings.py"}


def test_comfyui_gets_an_environment_of_its_own_from_the_lock():
    commands = image.python_commands("/lock")
    assert commands[0].startswith("uv venv --seed") and commands[0].endswith(image.VENV)
    assert all(f"--python {image.VENV}/bin/python" in c and "/lock" in c for c in commands[1:])
    assert image.TOOLS_ENVIRONMENT["VIRTUAL_ENV"] == image.VENV, "comfy-cli installs where this says"
    command = image.comfyui_command(nodes.load())
    assert command.startswith("comfy --skip-prompt --workspace /opt/ComfyUI install --version 0.15.1 ")
    assert "--skip-requirement" in command and "--skip-torch-or-directml" in command
    assert "verify_nodes" in image.verify_command() and image.VENV in image.verify_command()


def test_the_lock_was_made_from_the_list_of_requirements():
    """Each requirement that is pinned by hand is in the lock as it is."""
    lock = image.LOCK.read_text().splitlines()
    lines = [line.strip() for line in (APP / "requirements.in").read_text().splitlines()]
    pinned = [line for line in lines if not line.startswith("#") and ("==" in line or " @ " in line)]
    assert len(pinned) > 10 and [line for line in pinned if line not in lock] == []


@pytest.mark.parametrize(("value", "told"), [("1", "True"), ("0", "False")])
def test_memory_snapshots_can_be_switched_off(value, told):
    code = (
        "import modal; real = modal.App.cls\n"
        "def cls(app, **chosen): print(chosen['enable_memory_snapshot']); return real(app, **chosen)\n"
        "modal.App.cls = cls; import modal_comfy_api"
    )
    assert run("-c", code, cwd=APP, COMFYD_MODAL_SNAPSHOT=value).stdout.strip() == told

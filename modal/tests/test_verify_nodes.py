import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from comfyd_modal import nodes, verify_nodes
from comfyd_modal.nodes import Nodes, Pack

APP = Path(__file__).resolve().parent.parent
LOG = """
Cannot import /opt/ComfyUI/custom_nodes/comfyui-supir module for custom nodes: No module named 'sgm'

Prestartup times for custom nodes:
   0.0 seconds (PRESTARTUP FAILED): /opt/ComfyUI/custom_nodes/rgthree-comfy

[INFO] Import times for custom nodes:
[INFO]    0.0 seconds: /opt/ComfyUI/custom_nodes/websocket_image_save.py
   0.3 seconds (IMPORT FAILED): /opt/ComfyUI/custom_nodes/comfyui-supir
WARNING: some comfy_extras/ nodes did not import correctly. This may be because they are missing some dependencies.
IMPORT FAILED: nodes_audio.py
"""


def test_only_packs_are_blamed_and_the_reason_is_told():
    found = verify_nodes.imports(Path("/opt/ComfyUI"), LOG)
    assert [f.pack for f in found] == ["rgthree-comfy", "comfyui-supir"]
    assert "No module named 'sgm'" in str(found[1])


def git(folder: Path, *args: str) -> str:
    command = [
        "git",
        "-c",
        "user.name=t",
        "-c",
        "user.email=t@t",
        "-c",
        "commit.gpgsign=false",
        "-C",
        str(folder),
        *args,
    ]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def write_pack(comfyui: Path, name: str, code: str, version: str = "1.0.0", submodule: str = "") -> Pack:
    """A pack in custom_nodes. With a submodule it is a clone whose submodule is empty, as without --recursive."""
    folder = comfyui / "custom_nodes" / name
    folder.mkdir()
    (folder / "__init__.py").write_text(code)
    (folder / "pyproject.toml").write_text(f'[project]\nname = "{name}"\nversion = "{version}"\n')
    if not submodule:
        return Pack(name, nodes.REGISTRY, "1.0", "", "", (f"{name}-Node",))
    (folder / ".gitmodules").write_text(f'[submodule "{submodule}"]\n\tpath = {submodule}\n\turl = https://x/y\n')
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "x")
    (folder / submodule).mkdir(parents=True)
    return Pack(name, nodes.GIT, "1.0", "https://x/z", git(folder, "rev-parse", "HEAD"), (f"{name}-Node",))


def works(name: str) -> str:
    return f"""
class Node:
    @classmethod
    def INPUT_TYPES(cls):
        return {{"required": {{}}}}
    RETURN_TYPES = ()
    FUNCTION = "run"
    CATEGORY = "test"
    def run(self):
        return ()
NODE_CLASS_MAPPINGS = {{"{name}-Node": Node}}
"""


@pytest.fixture
def comfyui(comfyui_dir, tmp_path) -> Path:
    """A copy of a real ComfyUI, to which packs may be added."""
    away = {".venv", "output", "input", "user", "temp", "models", "custom_nodes"}
    copy = tmp_path / "ComfyUI"
    shutil.copytree(comfyui_dir, copy, ignore=lambda folder, _: away if Path(folder) == comfyui_dir else ())
    (copy / "custom_nodes").mkdir()
    return copy


def wanted(comfyui: Path, *packs: Pack) -> Nodes:
    version = (comfyui / "comfyui_version.py").read_text().split('"')[-2]
    return Nodes("1.23.0", version, packs)


def test_packs_that_work_pass(comfyui, comfyui_python):
    good = write_pack(comfyui, "good", works("good"), version="1.0.0")
    assert verify_nodes.verify(comfyui, comfyui_python, wanted(comfyui, good)) == []


def test_each_broken_pack_fails_the_build_by_name(comfyui, comfyui_python, tmp_path):
    packs = [
        write_pack(comfyui, "good", works("good")),
        write_pack(comfyui, "broken", "import a_module_that_nobody_has"),
        # As ComfyUI_UltimateSDUpscale: it imports from its submodule.
        write_pack(comfyui, "shallow", "from .repositories.usdu import script", submodule="repositories/usdu"),
        write_pack(comfyui, "empty", "NODE_CLASS_MAPPINGS = {}"),
        write_pack(comfyui, "old", works("old"), version="0.9.1"),
        Pack("absent", nodes.REGISTRY, "2.0", "", "", ("absent-Node",)),
    ]
    moved = write_pack(comfyui, "moved", works("moved"), submodule="sub")
    (comfyui / "custom_nodes/moved/sub/file").write_text("is there")
    packs.append(Pack("moved", nodes.NIGHTLY, "1.0", "https://x/z", "f" * 40, moved.classes))
    listed = wanted(comfyui, *packs)
    lines = ["comfy_cli = '1.23.0'", f"comfyui.version = '{listed.comfyui}'"]
    for p in packs:
        lines += ["[[pack]]", f"name = '{p.name}'", f"install = '{p.install}'", f"version = '{p.version}'"]
        lines += [f"repository = '{p.repository}'", f"commit = '{p.commit}'", f"classes = {json.dumps(p.classes)}"]
    (tmp_path / "nodes.toml").write_text("\n".join(lines))

    command = [sys.executable, "-m", "comfyd_modal.verify_nodes", "--comfyui", str(comfyui), "--python", comfyui_python]
    command += ["--list", str(tmp_path / "nodes.toml"), "--report", str(tmp_path / "report.json")]
    done = subprocess.run(command, cwd=APP, capture_output=True, text=True, timeout=300, check=False)

    assert done.returncode == 1
    found: dict[str, str] = {}
    for line in done.stderr.splitlines():
        name, message = line.removeprefix("NODE CHECK FAILED: ").split(": ", 1)
        found[name] = found.get(name, "") + message
    assert set(found) == {"broken", "shallow", "empty", "old", "absent", "moved"}, done.stderr
    assert "No module named 'a_module_that_nobody_has'" in found["broken"]
    assert "submodule repositories/usdu is missing" in found["shallow"] and "--recursive" in found["shallow"]
    assert "/object_info does not have empty-Node" in found["empty"]
    assert "version 0.9.1 is installed, 1.0 is wanted" in found["old"]
    assert "was not installed" in found["absent"] and "banned" in found["absent"]
    assert f"{'f' * 40} is wanted" in found["moved"]
    report = {row["name"]: row["ok"] for row in json.loads((tmp_path / "report.json").read_text())["nodes"]}
    assert report == {p.name: p.name == "good" for p in packs}


def test_a_pack_that_ends_comfyui_fails_the_build_with_the_log(comfyui, comfyui_python):
    fatal = write_pack(comfyui, "fatal", "raise SystemExit('fatal pack: no GPU, no service')")
    found = verify_nodes.verify(comfyui, comfyui_python, wanted(comfyui, fatal))
    assert [f.pack for f in found] == ["ComfyUI"]
    assert "does not start" in str(found[0]) and "fatal pack: no GPU, no service" in str(found[0])


def test_another_comfyui_than_the_pinned_one_is_found(comfyui):
    assert "9.9.9 is wanted" in str(verify_nodes.folders(comfyui, Nodes("1.23.0", "9.9.9", ()))[0])

import os
import re
import subprocess

import pytest

from comfyd_modal import nodes
from comfyd_modal.nodes import ListError, Pack

# PRD 2.2, word for word.
BY_COMFY_NODE_INSTALL = [
    "comfyui-custom-scripts",
    "comfyui-impact-pack",
    "rgthree-comfy",
    "was-node-suite-comfyui",
    "cg-use-everywhere",
    "comfyui-image-saver",
    "comfyui-tooling-nodes",
    "comfyui-supir",
]
BY_GIT_CLONE = "ComfyUI_UltimateSDUpscale"
CLONED_FROM = "https://github.com/ssitu/ComfyUI_UltimateSDUpscale"

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def listed():
    return nodes.load()


def test_the_list_has_the_packs_of_the_prd_and_no_other(listed):
    assert [p.name for p in listed.packs] == [*BY_COMFY_NODE_INSTALL, BY_GIT_CLONE]


def test_each_pack_is_installed_the_prds_way_and_pinned(listed):
    for pack in listed.packs:
        commands = nodes.commands(pack, "/opt/ComfyUI")
        if pack.name == BY_GIT_CLONE:
            folder = f"/opt/ComfyUI/custom_nodes/{BY_GIT_CLONE}"
            assert commands[0] == f"git clone --recursive {CLONED_FROM} {folder}"
            assert commands[1] == f"git -C {folder} checkout --quiet {pack.commit}"
            assert commands[2].endswith("submodule update --init --recursive")
            continue
        # --skip-prompt is comfy-cli's own, before the subcommand.
        start = "comfy --skip-prompt --workspace /opt/ComfyUI node install --no-deps --mode remote "
        assert commands[0].startswith(start + pack.name + "@")
        if pack.install == nodes.REGISTRY:
            assert commands[0] == f"{start}{pack.name}@{pack.version}" and len(commands) == 2
        else:
            assert commands[0].endswith("@nightly") and any(f"checkout --quiet {pack.commit}" in c for c in commands)


@pytest.mark.parametrize("install", [nodes.REGISTRY, nodes.NIGHTLY])
def test_an_install_that_failed_fails_its_own_layer(tmp_path, install):
    """As comfy-cli does it: it ends with 0. A layer that did would be kept, and the pack be missing in each later build."""
    comfy = tmp_path / "bin/comfy"
    comfy.parent.mkdir()
    comfy.write_text("#!/bin/sh\necho 'ERROR: An error occurred while installing'\n")
    comfy.chmod(0o755)
    folder = tmp_path / "custom_nodes/a-pack"
    commands = nodes.commands(Pack("a-pack", install, "1.0", "https://x/y", COMMIT, ("A",)), str(tmp_path))[:2]

    def layer() -> subprocess.CompletedProcess:
        env = {"PATH": f"{comfy.parent}:{os.environ['PATH']}"}
        return subprocess.run(["sh", "-ec", "\n".join(commands)], env=env, capture_output=True, text=True, check=False)

    failed = layer()
    assert failed.returncode == 1 and "NODE CHECK FAILED: a-pack: comfy did not install it" in failed.stderr
    folder.mkdir(parents=True)
    assert layer().returncode == 1, "an empty folder is no pack"
    (folder / "__init__.py").touch()
    assert layer().returncode == 0


def test_everything_is_pinned_and_the_lock_has_what_breaks_supir(listed):
    from comfyd_modal import image

    lock = image.LOCK.read_text()
    lines = [line for line in lock.splitlines() if line and not line.startswith((" ", "#"))]
    assert all(
        re.match(r"[a-z0-9][a-z0-9._-]*(==\S+| @ git\+https://\S+@[0-9a-f]{40})$", line) for line in lines
    ), lines
    pinned = dict(line.split("==") for line in lines if "==" in line)
    assert listed.comfyui == "0.15.1" and listed.comfy_cli == "1.23.0"
    assert pinned["torch"] == "2.10.0" and pinned["torchvision"] == "0.25.0" and pinned["torchaudio"] == "2.10.0"
    assert pinned["transformers"].startswith("4.") and pinned["accelerate"] == "1.13.0"
    assert "comfyui-manager" in pinned and "pip" in pinned and "sam-2 @" in lock
    assert next(p for p in listed.packs if p.name == "comfyui-image-saver").version != "1.24.0", "it is banned"


PACK = f"""
comfy_cli = "1.23.0"
[comfyui]
version = "0.15.1"
[[pack]]
name = "a"
install = "git"
version = "1.0"
repository = "https://github.com/o/a"
commit = "{COMMIT}"
classes = ["A"]
"""


def test_a_pack_is_added_by_an_entry(tmp_path):
    file = tmp_path / "nodes.toml"
    file.write_text(PACK)
    assert nodes.load(file).packs == (Pack("a", "git", "1.0", "https://github.com/o/a", COMMIT, ("A",)),)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('name = "a"', 'name = "a; rm -rf /"', "a; rm -rf /"),
        ('name = "a"', 'name = "../a"', "letters, digits"),
        ('install = "git"', 'install = "pip"', "must be registry, nightly or git"),
        ('version = "1.0"', 'version = "latest"', "a: version is 'latest'"),
        (COMMIT, "main", "needs `commit`, 40 hex digits"),
        ("https://github.com/o/a", "git@github.com:o/a", "an https address"),
        ('classes = ["A"]', "classes = []", "`classes` is empty"),
        ('version = "0.15.1"', 'version = "nightly"', "comfyui.version is 'nightly'"),
        ('comfy_cli = "1.23.0"', "comfy_cli = ", "nodes.toml: "),
        ("[[pack]]", '[[pack]]\nname = "A"\nversion = "1"\nclasses = ["B"]\n[[pack]]', "a is there twice"),
    ],
)
def test_a_wrong_entry_is_named(tmp_path, old, new, words):
    file = tmp_path / "nodes.toml"
    file.write_text(PACK.replace(old, new))
    with pytest.raises(ListError) as e:
        nodes.load(file)
    assert words in str(e.value) and str(e.value).startswith("nodes.toml: ")


@pytest.mark.parametrize(
    ("a", "b", "same"), [("7.8", "7.8.0", True), ("1.0", "1", True), ("1.2.5", "1.2.50", False), ("1.10", "1.1", False)]
)
def test_versions_are_compared_as_the_registry_writes_them(a, b, same):
    assert nodes.same_version(a, b) is same

"""The list of ComfyUI and its node packs (../nodes.toml), and the commands that install them."""

import re
import shlex
import tomllib
from dataclasses import dataclass
from pathlib import Path

LIST = Path(__file__).resolve().parent.parent / "nodes.toml"

REGISTRY, NIGHTLY, GIT = "registry", "nightly", "git"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_VERSION = re.compile(r"\d+(\.\d+)*")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_REPOSITORY = re.compile(r"https://[A-Za-z0-9.-]+(/[A-Za-z0-9._-]+)+")


class ListError(ValueError):
    """The list of node packs says something impossible. The message names the file, the pack and what is allowed."""


@dataclass(frozen=True)
class Pack:
    """One node pack. `name` is also its folder in custom_nodes, where comfyui-manager 4.3 puts it."""

    name: str
    install: str
    version: str
    repository: str
    commit: str
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Nodes:
    """The whole list, in order."""

    comfy_cli: str
    comfyui: str
    packs: tuple[Pack, ...]


def load(path: Path = LIST) -> Nodes:
    """Reads and checks the list. ListError says what is wrong with it."""
    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except tomllib.TOMLDecodeError as e:
        raise ListError(f"{path.name}: {e}") from None
    packs = tuple(_pack(path.name, entry) for entry in data.get("pack", []))
    names = [p.name.lower() for p in packs]
    for name in names:
        if names.count(name) > 1:
            raise ListError(f"{path.name}: {name} is there twice")
    comfyui = data.get("comfyui", {}).get("version", "")
    comfy_cli = data.get("comfy_cli", "")
    for what, version in (("comfyui.version", comfyui), ("comfy_cli", comfy_cli)):
        if not _VERSION.fullmatch(version):
            raise ListError(f"{path.name}: {what} is {version!r}, and must be a version such as 1.2.3")
    return Nodes(comfy_cli, comfyui, packs)


def commands(pack: Pack, comfyui: str) -> list[str]:
    """The shell commands that install a pack into the ComfyUI at `comfyui`.

    The exit status of `comfy node install` says nothing (comfy-cli 1.23.0 with comfyui-manager 4.3 ends with 0 when the
    install failed, and when the version does not exist), hence verify_nodes afterwards; and a look at once, because
    Modal keeps a layer whose commands have ended with 0: a registry that was away for a moment would be missed in every
    later build. --no-deps: the Python packages of all packs are in requirements.lock; a pack's install.py still runs.
    """
    folder = shlex.quote(f"{comfyui}/custom_nodes/{pack.name}")
    install = f"comfy --skip-prompt --workspace {shlex.quote(comfyui)} node install --no-deps --mode remote {pack.name}"
    there = (
        f"test -f {folder}/__init__.py || "
        f"{{ echo 'NODE CHECK FAILED: {pack.name}: comfy did not install it, see above' >&2; exit 1; }}"
    )
    checkout = f"git -C {folder} checkout --quiet {pack.commit}"
    submodules = f"git -C {folder} submodule update --init --recursive"
    if pack.install == REGISTRY:
        return [f"{install}@{pack.version}", there]
    if pack.install == NIGHTLY:
        # The manager's list may name a fork (ltdrdata's for was-node-suite-comfyui): the commit is fetched from ours.
        fetch = f"git -C {folder} fetch --quiet {shlex.quote(pack.repository)} {pack.commit}"
        return [f"{install}@nightly", there, fetch, checkout, submodules]
    return [f"git clone --recursive {shlex.quote(pack.repository)} {folder}", checkout, submodules]


def same_version(a: str, b: str) -> bool:
    """Whether two versions are the same release: the registry says 7.8.0 where pyproject.toml says 7.8."""
    return _numbers(a) == _numbers(b)


def _numbers(version: str) -> list[str]:
    parts = version.strip().split(".")
    while len(parts) > 1 and parts[-1] == "0":
        parts.pop()
    return parts


def _pack(file: str, entry: dict) -> Pack:
    name = str(entry.get("name", ""))
    if not _NAME.fullmatch(name):
        raise ListError(f"{file}: a pack is called {name!r}; letters, digits, dots, dashes and underscores are allowed")
    pack = Pack(
        name=name,
        install=str(entry.get("install", REGISTRY)),
        version=str(entry.get("version", "")),
        repository=str(entry.get("repository", "")),
        commit=str(entry.get("commit", "")),
        classes=tuple(str(c) for c in entry.get("classes", [])),
    )
    if pack.install not in (REGISTRY, NIGHTLY, GIT):
        raise ListError(f"{file}: {name}: install is {pack.install!r}, and must be {REGISTRY}, {NIGHTLY} or {GIT}")
    if not _VERSION.fullmatch(pack.version):
        raise ListError(f"{file}: {name}: version is {pack.version!r}, and must be one such as 1.2.3")
    if pack.install != REGISTRY and not _COMMIT.fullmatch(pack.commit):
        raise ListError(f"{file}: {name}: install = {pack.install!r} needs `commit`, 40 hex digits")
    if pack.install != REGISTRY and not _REPOSITORY.fullmatch(pack.repository):
        raise ListError(f"{file}: {name}: install = {pack.install!r} needs `repository`, an https address")
    if not pack.classes:
        raise ListError(f"{file}: {name}: `classes` is empty, so nothing would tell whether the pack works")
    return pack

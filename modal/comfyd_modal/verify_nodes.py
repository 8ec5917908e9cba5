"""Checks every node pack of a ComfyUI; the image build fails on what it finds.

`comfy node install` ends with 0 whether or not it worked, and ComfyUI starts with broken packs, so: each pack's folder
must be there, with the wanted version or commit and its submodules; ComfyUI must start without an error from a pack;
and /object_info must have the classes that the list promises.

    python -m comfyd_modal.verify_nodes --comfyui DIR --python PYTHON [--list nodes.toml] [--report FILE.json]

Exit status 0 when all is well. Each finding is a line that begins with the pack's name.
"""

import argparse
import json
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from . import nodes

BOOT_LIMIT = 600.0  # seconds; the first start of a fresh image compiles every module

# "   0.1 seconds (IMPORT FAILED): /path", nodes.py; main.py prints the same with PRESTARTUP FAILED.
_FAILED = re.compile(r"seconds \((IMPORT|PRESTARTUP) FAILED\): (.+)$")
_REASON = re.compile(r"Cannot import (.+?) module for custom nodes: (.*)$")


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with a pack, or with ComfyUI itself (pack "ComfyUI")."""

    pack: str
    message: str

    def __str__(self) -> str:
        return f"{self.pack}: {self.message}"


def verify(comfyui: Path, python: str, wanted: nodes.Nodes, limit: float = BOOT_LIMIT) -> list[Finding]:
    """All findings, folders first; none means that every pack works. ComfyUI is started once, on the CPU."""
    findings = folders(comfyui, wanted)
    log, classes = boot(comfyui, python, limit)
    findings += imports(comfyui, log)
    if classes is None:
        tail = "\n    ".join(log.splitlines()[-25:])
        findings.append(Finding("ComfyUI", f"it does not start with these packs; the end of its log:\n    {tail}"))
        return findings
    blamed = {f.pack.lower() for f in findings}
    for pack in wanted.packs:
        missing = [c for c in pack.classes if c not in classes]
        if missing and pack.name.lower() not in blamed:
            findings.append(Finding(pack.name, f"/object_info does not have {', '.join(missing)}"))
    return findings


def folders(comfyui: Path, wanted: nodes.Nodes) -> list[Finding]:
    """What is wrong with the packs as they lie on the disk, and with ComfyUI's version."""
    findings = []
    version = _comfyui_version(comfyui)
    if version != wanted.comfyui:
        findings.append(Finding("ComfyUI", f"version {version} is installed, {wanted.comfyui} is wanted"))
    for pack in wanted.packs:
        folder = comfyui / "custom_nodes" / pack.name
        if not folder.is_dir():
            findings.append(Finding(pack.name, f"it was not installed; {_hint(pack)}"))
            continue
        message = _wrong_version(pack, folder) or _missing_submodule(pack, folder)
        if message:
            findings.append(Finding(pack.name, message))
    return findings


def imports(comfyui: Path, log: str) -> list[Finding]:
    """The packs that ComfyUI's log says failed to import. Its own extras (comfy_extras) may fail: they are not ours."""
    reasons = {Path(m[1]).name: m[2] for m in map(_REASON.search, log.splitlines()) if m}
    failed: dict[str, Finding] = {}
    for match in filter(None, map(_FAILED.search, log.splitlines())):
        path = Path(match[2].strip())
        if path.parent.name == "custom_nodes" and path.parent.parent.name == comfyui.name and path.name not in failed:
            why = reasons.get(path.name, "see ComfyUI's log above")
            failed[path.name] = Finding(path.name, f"ComfyUI cannot import it: {why}")
    return list(failed.values())


def boot(comfyui: Path, python: str, limit: float = BOOT_LIMIT) -> tuple[str, dict | None]:
    """Starts ComfyUI on the CPU and ends it: its log, and its /object_info, None if it never answered."""
    work = Path(tempfile.mkdtemp(prefix="verify-"))
    try:
        port = _free_port()
        command = [python, "-u", "main.py", "--cpu", "--listen", "127.0.0.1", "--port", str(port)]
        command += ["--disable-auto-launch", "--database-url", f"sqlite:///{work / 'comfyui.db'}"]
        for kind in ("input", "output", "temp", "user"):
            (work / kind).mkdir()
            command += [f"--{kind}-directory", str(work / kind)]
        with open(work / "log", "wb") as log:
            process = subprocess.Popen(command, cwd=comfyui, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            try:
                classes = _object_info(port, process, time.monotonic() + limit)
            finally:
                process.kill()
                process.wait()
        return (work / "log").read_text("utf-8", "replace"), classes
    finally:
        shutil.rmtree(work, ignore_errors=True)


def report(wanted: nodes.Nodes, findings: list[Finding]) -> dict:
    """What `check` tells of the image later: ComfyUI's version and each pack with what was found."""
    found = {f.pack.lower(): f.message for f in findings}
    rows = [
        {
            "name": p.name,
            "version": p.version,
            "ok": p.name.lower() not in found,
            "message": found.get(p.name.lower(), ""),
        }
        for p in wanted.packs
    ]
    return {"comfyui": wanted.comfyui, "nodes": rows}


def main(arguments: list[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="verify_nodes")
    parser.add_argument("--comfyui", type=Path, required=True, help="ComfyUI's folder")
    parser.add_argument("--python", default=sys.executable, help="ComfyUI's interpreter")
    parser.add_argument("--list", type=Path, default=nodes.LIST, help="the list of packs")
    parser.add_argument("--report", type=Path, help="a JSON file to write")
    args = parser.parse_args(arguments)
    wanted = nodes.load(args.list)
    findings = verify(args.comfyui.resolve(), args.python, wanted)
    for finding in findings:
        print(f"NODE CHECK FAILED: {finding}", file=sys.stderr)
    if args.report:
        args.report.write_text(json.dumps(report(wanted, findings)))
    if not findings:
        print(f"node check: ComfyUI {wanted.comfyui} and all {len(wanted.packs)} packs work")
    return 1 if findings else 0


def _object_info(port: int, process: subprocess.Popen, deadline: float) -> dict | None:
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/object_info", timeout=60) as answer:
                return json.load(answer)
        except (OSError, urllib.error.URLError, ValueError):
            time.sleep(0.2)
    return None


def _wrong_version(pack: nodes.Pack, folder: Path) -> str:
    if pack.install != nodes.REGISTRY:
        commit = _git(folder, "rev-parse", "HEAD")
        return "" if commit == pack.commit else f"commit {commit or '(none)'} is installed, {pack.commit} is wanted"
    try:
        version = str(tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]["version"])
    except (OSError, KeyError, tomllib.TOMLDecodeError) as e:
        return f"its version cannot be read from pyproject.toml ({e!r}); {_hint(pack)}"
    if nodes.same_version(version, pack.version):
        return ""
    return f"version {version} is installed, {pack.version} is wanted; {_hint(pack)}"


def _missing_submodule(pack: nodes.Pack, folder: Path) -> str:
    modules = folder / ".gitmodules"
    if pack.install == nodes.REGISTRY or not modules.is_file():  # the registry's archive has what the pack needs
        return ""
    for path in re.findall(r"^\s*path\s*=\s*(.+?)\s*$", modules.read_text("utf-8"), re.MULTILINE):
        if not any((folder / path).glob("*")):
            return f"its submodule {path} is missing; it must be cloned with --recursive"
    return ""


def _hint(pack: nodes.Pack) -> str:
    if pack.install == nodes.GIT:
        return f"see the output of `git clone {pack.repository}` above"
    change = "choose another version" if pack.install == nodes.REGISTRY else "choose another commit"
    return (
        f"see the output of `comfy node install` above. If the registry does not offer version {pack.version} (it may "
        f'be banned), {change} in nodes.toml, or install = "{nodes.NIGHTLY}" with its commit'
    )


def _comfyui_version(comfyui: Path) -> str:
    try:
        found = re.search(r'__version__\s*=\s*"([^"]+)"', (comfyui / "comfyui_version.py").read_text("utf-8"))
    except OSError:
        return "(none)"
    return found[1] if found else "(unknown)"


def _git(folder: Path, *args: str) -> str:
    command = ["git", "-c", f"safe.directory={folder}", "-C", str(folder), *args]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""What `comfyd doctor` asks the deployed app: can it download, are the models there, do the node packs work.

JSON: {"secret": {"ok", "message"}, "sources": [{"path", "ok", "message"}], "volume": {"ok", "message"},
"models": [{"path", "present", "size", "wanted_size", "partial"}], "comfyui": "0.15.1",
"nodes": [{"name", "version", "ok", "message"}], "settings": {...}}. Each message says what to do when ok is false.
"""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests

from . import models, nodes, settings, transfer
from .download import PARALLEL, SECRET, is_of, refusal, token_from_env
from .models import Model, Models
from .volume import reload

HUB = "https://huggingface.co"
LIMIT = 20.0  # seconds for one question


def check() -> str:
    """The answer about the container's own Volume and image, which the image's variables name (image.py)."""
    report = Path(os.environ.get("COMFYD_NODE_REPORT", ""))
    return answer(models.folder(), report, token_from_env(), models.load())


def answer(models_dir: Path, report: Path, token: str, listed: Models, hub: str = HUB) -> str:
    """The answer, as JSON. Never raises for what it is there to find out."""
    reload()
    verified = _verified(report)
    return json.dumps(
        {
            "secret": secret(token, hub),
            "sources": sources(listed, token, hub),
            "volume": volume(models_dir, listed),
            "models": models.status(models_dir, listed),
            **verified,
            "settings": settings.from_env().public(),
        }
    )


def secret(token: str, hub: str = HUB) -> dict:
    """Whether Hugging Face takes the token."""
    if not token:
        return _no(
            f"the Modal Secret {SECRET} has no key {SECRET}, or it is empty. Make a token at {HUB}/settings/tokens, "
            f"then: modal secret create --force {SECRET} {SECRET}=hf_..."
        )
    try:
        answer = requests.get(f"{hub}/api/whoami-v2", headers={"Authorization": f"Bearer {token}"}, timeout=LIMIT)
    except requests.RequestException as e:
        return _no(f"Hugging Face could not be asked ({type(e).__name__}); try again later.")
    if answer.status_code == 200:
        return _yes("Hugging Face takes the token")
    if answer.status_code == 401:
        return _no(refusal(401, f"{hub}/api/whoami-v2", True, True))
    return _no(f"Hugging Face answers {answer.status_code} when asked about the token; try again later.")


def sources(listed: Models, token: str, hub: str = HUB) -> list[dict]:
    """Whether each listed model could be downloaded now: token, licence, address."""
    with ThreadPoolExecutor(PARALLEL) as pool:
        return list(pool.map(lambda m: {"path": m.path, **_source(m, token, hub)}, listed.models))


def volume(models_dir: Path, listed: Models) -> dict:
    """Whether the Volume is mounted and has all listed models."""
    if not models_dir.is_dir():
        return _no(f"no Volume is mounted at {models_dir}; deploy the app again.")
    there = models.present(models_dir, listed)
    total = sum(row["size"] for row in there)
    absent = models.missing(models_dir, listed)
    text = f"{len(there)} models, {total / 1e9:.1f} GB"
    if absent:
        run = "modal run modal/modal_comfy_api.py::download_models"
        return _no(f"{text}; missing: {', '.join(absent)}. Get them with: {run}")
    return _yes(text)


def _source(model: Model, token: str, hub: str) -> dict:
    ours = is_of(model.url, (hub,))
    headers = {"Authorization": f"Bearer {token}"} if ours and token else {}
    try:
        # Not further: Hugging Face has let us in when it sends us on to its storage.
        answer = requests.head(model.url, headers=headers, timeout=LIMIT, allow_redirects=False)
    except requests.RequestException as e:
        return _no(f"{transfer.host(model.url)} could not be asked ({type(e).__name__}); try again later.")
    if answer.status_code < 400:
        return _yes("can be downloaded")
    return _no(refusal(answer.status_code, model.url, ours, bool(token)))


def _verified(report: Path) -> dict:
    try:
        return json.loads(report.read_text("utf-8"))
    except (OSError, ValueError):
        listed = nodes.load()
        message = "the image has no report of the node check; deploy the app again."
        rows = [{"name": p.name, "version": p.version, **_no(message)} for p in listed.packs]
        return {"comfyui": listed.comfyui, "nodes": rows}


def _yes(message: str) -> dict:
    return {"ok": True, "message": message}


def _no(message: str) -> dict:
    return {"ok": False, "message": message}

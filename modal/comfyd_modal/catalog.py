"""What this app's ComfyUI can do, found out without a GPU."""

import dataclasses
import gzip
import json
import os

from . import models, place, settings, volume
from .client import loads
from .comfyui import ComfyUI
from .payload import finite


def catalog(where: place.Place | None = None) -> bytes:
    """gzip of JSON {"version", "object_info", "settings", "models", "missing"}; for a function without a GPU.

    It starts a ComfyUI with --cpu and ends it; StartFailed when that does not come up.
    """
    volume.reload()
    where = where or place.from_env()
    args = tuple(a for a in where.args if a != "--cpu") + ("--cpu",)
    # Its own folder: a ComfyUI may run beside it.
    comfy = ComfyUI(dataclasses.replace(where, args=args, work=where.work / f"catalog-{os.getpid()}"))
    try:
        comfy.spawn()
        comfy.wait_ready()
        info = loads(comfy.get("/object_info", 120))
    finally:
        comfy.remove()
    answer = {
        "version": comfy.about.version,
        "object_info": finite(info),
        "settings": settings.from_env().public(),
        "models": models.present(where.models),
        "missing": models.missing(where.models),
    }
    return gzip.compress(json.dumps(answer, separators=(",", ":"), allow_nan=False).encode())

"""Where a container's ComfyUI is, and how it is started."""

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from . import models, settings

# Of Modal's limit for both hooks, which ends the container without a word. ComfyUI must give up before, so that its log
# is told; the rest is for the imports ahead of it and the snapshot.
SHARE_OF_STARTUP = 0.65


@dataclass(frozen=True)
class Place:
    """The ComfyUI of one container."""

    folder: Path  # of main.py
    python: str  # its interpreter
    work: Path  # for its input, output, temp and user folders and its log; belongs to it alone
    args: tuple[str, ...] = ()  # more arguments of main.py
    models: Path = Path("/models")  # where the Volume is
    startup_timeout: float = 390.0  # seconds from the start to the first answer

    def models_config(self) -> Path:
        """Writes the file by which ComfyUI finds the models, below `work`, and returns its path."""
        return models.write_extra_model_paths(self.work, self.models)


def from_env(env: Mapping[str, str] = os.environ) -> Place:
    """The place that the image's variables name (image.py sets them, tests override them)."""
    return Place(
        folder=Path(env["COMFYD_COMFYUI_DIR"]),
        python=env["COMFYD_COMFYUI_PYTHON"],
        work=Path(env.get("COMFYD_WORK_DIR") or "/tmp/comfyd"),
        args=tuple(shlex.split(env.get("COMFYD_COMFYUI_ARGS", ""))),
        models=Path(env.get("COMFYD_MODELS_DIR") or "/models"),
        startup_timeout=SHARE_OF_STARTUP * settings.from_env(env).startup_timeout,
    )

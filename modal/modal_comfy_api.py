"""The Modal app of comfyd: ComfyUI on Modal GPUs.

    modal deploy modal/modal_comfy_api.py

The worker of comfyd calls it through Modal's SDK; there is no web endpoint. Settings are read from the environment at
deploy time (comfyd_modal/settings.py), node packs from nodes.toml, models from models.toml.
"""

import logging

import modal

from comfyd_modal import image, ledger, models, nodes, settings
from comfyd_modal import catalog as catalogue
from comfyd_modal import check as checks
from comfyd_modal import jobs
from comfyd_modal.download import SECRET
from comfyd_modal.runner import Runner

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")

try:
    chosen = settings.from_env()
    listed_nodes, listed_models = nodes.load(), models.load()
except (settings.SettingError, nodes.ListError, models.ModelError) as wrong:
    raise SystemExit(f"comfyd: {wrong}") from None

app = modal.App(chosen.app)
volume = modal.Volume.from_name(chosen.volume, create_if_missing=True)
secret = modal.Secret.from_name(SECRET, required_keys=[SECRET])

slim_image = image.slim(chosen)
models_image = image.with_models(chosen, listed_models, volume, secret)
comfyui_image = image.comfyui(chosen, listed_nodes)

# ComfyUI and the node packs are other people's code: they get the models read-only, and never the token.
to_read = {image.MODELS: volume.with_mount_options(read_only=True)}
to_write = {image.MODELS: volume}


@app.cls(
    image=comfyui_image,
    gpu=list(chosen.gpu) if len(chosen.gpu) > 1 else chosen.gpu[0],
    cpu=chosen.cpu,
    memory=chosen.memory,
    volumes=to_read,
    timeout=chosen.timeout,
    startup_timeout=chosen.startup_timeout,
    min_containers=chosen.min_containers,
    max_containers=chosen.max_containers,
    scaledown_window=chosen.scaledown_window,
    region=list(chosen.region) or None,
    retries=0,  # Temporal decides about retries
    enable_memory_snapshot=chosen.snapshot,
    experimental_options={"enable_gpu_snapshot": True} if chosen.gpu_snapshot else None,
    _experimental_restrict_output=True,  # CBOR, which Go reads, for Python's callers too
)
class ComfyUI:
    """One container with one ComfyUI, and one prompt at a time in it."""

    @modal.enter(snap=True)
    def prepare(self) -> None:
        """Before the memory snapshot: what needs no GPU."""
        self.runner = Runner()
        self.runner.prepare()

    @modal.enter(snap=False)
    def start(self) -> None:
        """After the snapshot was restored: ComfyUI comes up."""
        self.runner.start()

    @modal.exit()
    def stop(self) -> None:
        """The container ends."""
        self.runner.stop()

    @modal.method()
    async def run(
        self, workflow_json: str, job_id: str, options_json: str = "{}", inputs: list[list] | None = None
    ) -> bytes:
        """Runs a workflow in ComfyUI's API format; answers the payload that comfyd_modal/payload.py describes."""
        return await self.runner.run(workflow_json, job_id, options_json, inputs)

    @modal.method()
    async def warm(self) -> str:
        """Does nothing but have a container; JSON about it."""
        return await self.runner.warm()


@app.function(image=comfyui_image, volumes=to_read, cpu=2, memory=8192, timeout=900)
def catalog() -> bytes:
    """gzip of JSON: ComfyUI's version and /object_info, the models, the settings. No GPU."""
    return catalogue.catalog()


@app.function(image=slim_image, timeout=60)
def locate(prompt_id: str, bar: bool = False) -> str:
    """The ID of the call that has claimed a prompt, "" for none. With bar, an unclaimed one may never run any more."""
    return ledger.locate(prompt_id, bar)


@app.function(image=models_image, volumes=to_write, secrets=[secret], cpu=4, memory=4096, timeout=6 * 3600)
def add_model(url: str, folder: str, name: str = "", sha256: str = "") -> str:
    """Downloads one more model to the Volume; JSON {"path", "size", "sha256"}."""
    return jobs.add_model(url, folder, name, sha256, chosen.volume)


@app.function(image=models_image, volumes=to_write, secrets=[secret], cpu=4, memory=4096, timeout=6 * 3600)
def download_models() -> None:
    """Downloads the listed models that are not on the Volume, as the deploy does: modal run ...::download_models"""
    jobs.download_listed(models.to_entries(listed_models.models), chosen.volume)


@app.function(image=comfyui_image, volumes=to_read, secrets=[secret], timeout=120)
def check() -> str:
    """JSON for `comfyd doctor`, see comfyd_modal/check.py. ComfyUI is not started, so that no pack sees the token."""
    return checks.check()

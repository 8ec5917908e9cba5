"""The catalogue, from a real ComfyUI without a GPU."""

import gzip
import json
from pathlib import Path

from comfyd_modal.catalog import catalog
from comfyd_modal.place import Place


def test_the_catalogue(comfyui_dir: Path, comfyui_python: str, tmp_path: Path) -> None:
    models = tmp_path / "models"
    (models / "vae").mkdir(parents=True)
    (models / "vae" / "mine.safetensors").write_bytes(b"12345")
    (models / "unet" / "sub").mkdir(parents=True)
    (models / "unet" / "sub" / "other.safetensors").write_bytes(b"1")
    work = tmp_path / "work"
    answer = json.loads(gzip.decompress(catalog(Place(comfyui_dir, comfyui_python, work, models=models))))
    assert set(answer) == {"version", "object_info", "settings", "models", "missing"}
    assert answer["version"].count(".") == 2
    info = answer["object_info"]
    assert info["SaveImage"]["output_node"] is True
    assert "mine.safetensors" in info["VAELoader"]["input"]["required"]["vae_name"][0]
    assert {"folder": "vae", "name": "mine.safetensors", "size": 5} in answer["models"]
    assert {"folder": "unet", "name": "sub/other.safetensors", "size": 1} in answer["models"]
    assert "unet/flux1-dev.safetensors" in answer["missing"]
    assert answer["settings"]["gpu"] == "L40S"
    assert list(work.iterdir()) == [], "nothing is left"

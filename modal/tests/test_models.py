import json
from pathlib import Path

import pytest
import yaml

from comfyd_modal import models
from comfyd_modal.comfyui import ComfyUI
from comfyd_modal.models import Model, ModelError, Models, Record
from comfyd_modal.place import Place

# PRD 2.3, word for word.
PRD = {
    "vae/ae.safetensors": "https://huggingface.co/black-forest-labs/FLUX.1-dev/resolve/main/ae.safetensors",
    "upscale_models/4x-UltraSharp.pth": "https://huggingface.co/datasets/Kizi-Art/Upscale/resolve/"
    "fa98e357882a23b8e7928957a39462fbfaee1af5/4x-UltraSharp.pth",
    "upscale_models/4x_foolhardy_Remacri.pth": "https://huggingface.co/FacehugmanIII/4x_foolhardy_Remacri/resolve/"
    "main/4x_foolhardy_Remacri.pth",
    "unet/flux1-dev.safetensors": "https://huggingface.co/black-forest-labs/FLUX.1-dev/resolve/main/"
    "flux1-dev.safetensors",
    "clip/t5xxl_fp8_e4m3fn.safetensors": "https://huggingface.co/comfyanonymous/flux_text_encoders/resolve/main/"
    "t5xxl_fp8_e4m3fn.safetensors",
    "clip/clip_l.safetensors": "https://huggingface.co/comfyanonymous/flux_text_encoders/resolve/main/"
    "clip_l.safetensors",
    "checkpoints/juggernautXL_v9Rdphoto2Lightning.safetensors": "https://huggingface.co/AiWise/"
    "Juggernaut-XL-V9-GE-RDPhoto2-Lightning_4S/resolve/main/juggernautXL_v9Rdphoto2Lightning.safetensors",
    "checkpoints/SUPIR-v0Q.ckpt": "https://huggingface.co/camenduru/SUPIR/resolve/main/SUPIR-v0Q.ckpt",
}

LOADERS = {  # the node and input that must list each
    "vae/ae.safetensors": [("VAELoader", "vae_name")],
    "upscale_models/4x-UltraSharp.pth": [("UpscaleModelLoader", "model_name")],
    "upscale_models/4x_foolhardy_Remacri.pth": [("UpscaleModelLoader", "model_name")],
    "unet/flux1-dev.safetensors": [("UNETLoader", "unet_name")],
    "clip/t5xxl_fp8_e4m3fn.safetensors": [("CLIPLoader", "clip_name"), ("DualCLIPLoader", "clip_name1")],
    "clip/clip_l.safetensors": [("CLIPLoader", "clip_name"), ("DualCLIPLoader", "clip_name2")],
    "checkpoints/juggernautXL_v9Rdphoto2Lightning.safetensors": [("CheckpointLoaderSimple", "ckpt_name")],
    "checkpoints/SUPIR-v0Q.ckpt": [("CheckpointLoaderSimple", "ckpt_name")],
}


def place_all(folder: Path, listed: Models) -> None:
    for model in listed.models:
        path = folder / model.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"placeholder")


def test_the_list_is_the_prds():
    assert {m.path: m.url for m in models.load().models} == PRD


def test_a_real_comfyui_lists_each_under_its_loader(comfyui_dir, comfyui_python, tmp_path):
    volume = tmp_path / "models"
    place_all(volume, models.load())
    (volume / "loras").mkdir()
    (volume / "loras/added.safetensors").write_bytes(b"placeholder")
    comfy = ComfyUI(Place(comfyui_dir, comfyui_python, tmp_path / "work", ("--cpu",), volume))
    try:
        comfy.spawn()
        comfy.wait_ready()
        wanted = [(path, node, field) for path, loaders in LOADERS.items() for node, field in loaders]
        for path, node, field in [*wanted, ("loras/added.safetensors", "LoraLoader", "lora_name")]:
            assert path.split("/", 1)[1] in options(json.loads(comfy.get(f"/object_info/{node}", 30)), node, field)
    finally:
        comfy.close()


def options(info: dict, node: str, field: str) -> list[str]:
    kind, *more = info[node]["input"]["required"][field]
    return kind if isinstance(kind, list) else more[0]["options"]  # the second form is newer ComfyUIs'


def test_extra_model_paths_has_the_prds_folder_names(tmp_path):
    path = models.write_extra_model_paths(tmp_path / "work", Path("/models"))
    config = yaml.safe_load(path.read_text())["comfyd"]
    assert config["base_path"] == "/models"
    for folder in ("vae", "upscale_models", "unet", "clip", "checkpoints"):
        assert config[folder] == folder


def test_a_path_with_odd_characters_survives_the_yaml(tmp_path):
    odd = Path('/mo dels/a: "b" #c')
    path = models.write_extra_model_paths(tmp_path, odd)
    assert yaml.safe_load(path.read_text())["comfyd"]["base_path"] == str(odd)


def test_missing_and_present(tmp_path):
    listed = models.load()
    assert models.missing(tmp_path) == list(PRD) and models.present(tmp_path) == []
    sizes = {m.path: m.size for m in listed.models}
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/SUPIR-v0Q.ckpt").write_bytes(b"12345")
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae/ae.safetensors").write_bytes(b"too short")
    (tmp_path / "loras/style").mkdir(parents=True)
    (tmp_path / "loras/style/added.safetensors").write_bytes(b"123")
    (tmp_path / "loras/notes.txt").write_bytes(b"not a model")
    assert "checkpoints/SUPIR-v0Q.ckpt" not in models.missing(tmp_path), "its size is not listed"
    assert "vae/ae.safetensors" in models.missing(tmp_path), "it has another size than the list says"
    assert {"folder": "loras", "name": "style/added.safetensors", "size": 3} in models.present(tmp_path)
    assert len(models.present(tmp_path)) == 3
    row = next(r for r in models.status(tmp_path) if r["path"] == "vae/ae.safetensors")
    assert row == {
        "path": "vae/ae.safetensors",
        "present": False,
        "size": 9,
        "wanted_size": sizes["vae/ae.safetensors"],
        "partial": 0,
    }


def test_a_record_tells_the_size_where_the_list_does_not(tmp_path):
    listed = Models(("vae",), (Model("vae", "a.pth", "https://x/a.pth"),))
    model = listed.models[0]
    models.record_path(tmp_path, model).parent.mkdir(parents=True)
    models.write_record(tmp_path, model, Record(model.url, 5, "0" * 64))
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae/a.pth").write_bytes(b"1234")
    assert models.missing(tmp_path, listed) == ["vae/a.pth"]
    (tmp_path / "vae/a.pth").write_bytes(b"12345")
    assert models.missing(tmp_path, listed) == []


@pytest.mark.parametrize(
    ("url", "folder", "name", "sha256", "words"),
    [
        ("https://x/a.pth", "../etc", "", "", "no folder of ComfyUI's models"),
        ("https://x/a.pth", "vae/../../etc", "", "", "no folder of ComfyUI's models"),
        ("https://x/a.pth", "custom_nodes", "", "", "no folder of ComfyUI's models"),
        ("https://x/a.pth", "", "", "", "it may be checkpoints"),
        ("https://x/a.pth", "vae", "../a.pth", "", "without slashes"),
        ("https://x/a.pth", "vae", "/etc/a.pth", "", "without slashes"),
        ("https://x/a.pth", "vae", "..\\a.pth", "", "without slashes"),
        ("https://x/a.pth", "vae", ".hidden.pth", "", "no name for a model"),
        ("https://x/a.pth", "vae", "a\0.pth", "", "no name for a model"),
        ("https://x/a.pth", "vae", "a" * 300 + ".pth", "", "no name for a model"),
        ("https://x/..%2f..%2fa.pth", "vae", "", "", None),
        ("https://x/a.exe", "vae", "", "", "must end in one of .safetensors"),
        ("https://x/", "vae", "", "", "no name for a model"),
        ("file:///etc/passwd", "vae", "a.pth", "", "must begin with https://"),
        ("ftp://x/a.pth", "vae", "", "", "must begin with https://"),
        ("https://x/a.pth", "vae", "", "abc", "64 hex digits"),
    ],
)
def test_nothing_leaves_the_models_folder(url, folder, name, sha256, words):
    listed = models.load()
    if words is None:  # an escaped slash in the address is only the end of it that counts
        assert listed.one(url, folder, name, sha256).path == "vae/a.pth"
        return
    with pytest.raises(ModelError) as e:
        listed.one(url, folder, name, sha256)
    assert words in str(e.value)


def test_the_name_is_the_addresss_and_a_hash_may_be_in_capitals():
    listed = models.load()
    model = listed.one("https://x/models/My%20Lora.safetensors?download=true", "loras", sha256="A" * 64)
    assert model == Model(
        "loras", "My Lora.safetensors", "https://x/models/My%20Lora.safetensors?download=true", 0, "a" * 64
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('folders = ["../x"]', "no name for a folder"),
        ('folders = ["vae"]\n[[model]]\nfolder = "vae"\nname = "a.txt"\nurl = "https://x/a.txt"', "a.txt"),
        ('folders = ["vae"]\n[[model]]\nfolder = "unet"\nurl = "https://x/a.pth"', "no folder"),
        ('folders = ["vae"]\n[[model]]\nfolder = "vae"\nurl = "https://x/a.pth"\nsise = 1', "sise"),
        ('folders = ["vae"]' + '\n[[model]]\nfolder = "vae"\nurl = "https://x/a.pth"' * 2, "twice"),
        ("folders = [", "models.toml: "),
    ],
)
def test_a_wrong_list_is_named(tmp_path, text, words):
    file = tmp_path / "models.toml"
    file.write_text(text)
    with pytest.raises(ModelError) as e:
        models.load(file)
    assert words in str(e.value) and str(e.value).startswith("models.toml: ")


def test_entries_survive_the_way_into_a_container():
    listed = models.load().models
    assert models.from_entries(json.loads(json.dumps(models.to_entries(listed)))) == list(listed)

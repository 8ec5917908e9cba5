import json

import pytest

from comfyd_modal import check, models
from comfyd_modal.models import Model, Models
from support_files import File, FileServer, content


@pytest.fixture
def hub():
    with FileServer() as server:
        server.files["/api/whoami-v2"] = File(b"{}", type="application/json")
        yield server


def listed(hub: FileServer) -> Models:
    data = content(100)
    models_ = (
        Model("vae", "open.safetensors", hub.url("/o/open/resolve/main/open.safetensors"), 100),
        Model("unet", "gated.safetensors", hub.url("/o/gated/resolve/main/gated.safetensors"), 5),
        Model("clip", "moved.safetensors", hub.url("/o/moved/resolve/main/moved.safetensors")),
    )
    hub.files["/o/open/resolve/main/open.safetensors"] = File(data, linked=True)
    hub.files["/o/gated/resolve/main/gated.safetensors"] = File(status=403)
    return Models(("vae", "unet", "clip"), models_)


def test_the_answer_says_what_works_and_what_to_do_about_the_rest(hub, tmp_path):
    want = listed(hub)
    volume = tmp_path / "models"
    (volume / "vae").mkdir(parents=True)
    (volume / "vae/open.safetensors").write_bytes(content(100))
    report = tmp_path / "report.json"
    rows = [{"name": "comfyui-supir", "version": "1.0.3", "ok": True, "message": ""}]
    report.write_text(json.dumps({"comfyui": "0.15.1", "nodes": rows}))
    answer = json.loads(check.answer(volume, report, "hf_x", want, hub.url("")))
    assert answer["secret"]["ok"] and hub.asked("/api/whoami-v2")[0]["Authorization"] == "Bearer hf_x"
    assert [s["ok"] for s in answer["sources"]] == [True, False, False]
    assert "licence has not been accepted" in answer["sources"][1]["message"]
    assert "/o/gated as the token's owner" in answer["sources"][1]["message"]
    assert "no such file (404)" in answer["sources"][2]["message"]
    assert not answer["volume"]["ok"]
    assert "unet/gated.safetensors, clip/moved.safetensors" in answer["volume"]["message"]
    assert "download_models" in answer["volume"]["message"]
    assert [(m["path"], m["present"], m["wanted_size"]) for m in answer["models"]][0] == (
        "vae/open.safetensors",
        True,
        100,
    )
    assert answer["comfyui"] == "0.15.1" and answer["nodes"] == rows
    assert answer["settings"]["gpu"] == "L40S"
    assert "hf_x" not in json.dumps(answer)
    assert not hub.asked("/storage/o/open/resolve/main/open.safetensors"), "nothing is downloaded"


def test_all_is_well(hub, tmp_path):
    want = Models(("vae",), listed(hub).models[:1])
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae/open.safetensors").write_bytes(content(100))
    assert check.volume(tmp_path, want) == {"ok": True, "message": "1 models, 0.0 GB"}
    assert all(s["ok"] for s in check.sources(want, "hf_x", hub.url("")))


def test_no_token(hub):
    found = check.secret("", hub.url(""))
    assert not found["ok"] and "modal secret create --force HUGGINGFACE_ACCESS_TOKEN" in found["message"]
    assert not hub.requests


@pytest.mark.parametrize(("status", "words"), [(401, "does not accept the token"), (502, "answers 502")])
def test_a_token_that_is_not_taken(hub, status, words):
    hub.files["/api/whoami-v2"] = File(status=status)
    found = check.secret("hf_x", hub.url(""))
    assert not found["ok"] and words in found["message"]


def test_hugging_face_out_of_reach():
    assert "could not be asked" in check.secret("hf_x", "http://127.0.0.1:9")["message"]


def test_no_volume(tmp_path):
    assert "no Volume is mounted" in check.volume(tmp_path / "none", models.load())["message"]


def test_the_token_is_not_sent_without_tls(hub):
    want = Models(("vae",), (Model("vae", "a.pth", hub.url("/a.pth")),))
    check.sources(want, "hf_x", hub.url("").replace("http:", "https:"))
    assert "Authorization" not in hub.asked("/a.pth")[0]


def test_the_token_is_not_sent_to_other_hosts(hub):
    want = Models(("vae",), (Model("vae", "a.pth", hub.url("/a.pth", "localhost")),))
    hub.files["/a.pth"] = File(b"x")
    assert check.sources(want, "hf_x", hub.url(""))[0]["ok"]
    assert "Authorization" not in hub.asked("/a.pth")[0]


def test_an_image_without_a_report_says_so_of_each_pack(hub, tmp_path):
    answer = json.loads(check.answer(tmp_path, tmp_path / "none", "hf_x", listed(hub), hub.url("")))
    assert len(answer["nodes"]) == 9 and not any(row["ok"] for row in answer["nodes"])
    assert "deploy the app again" in answer["nodes"][0]["message"]

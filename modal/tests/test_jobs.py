import json

import pytest

from comfyd_modal import jobs, models
from comfyd_modal.download import DownloadError
from support_files import File, FileServer, content


class Volume:
    """Stands for modal.Volume: what is committed, and when."""

    def __init__(self) -> None:
        self.commits = 0

    def from_name(self, name: str) -> "Volume":
        assert name == "weights"
        return self

    def commit(self) -> None:
        self.commits += 1


@pytest.fixture
def volume(tmp_path, monkeypatch):
    v = Volume()
    monkeypatch.setattr(jobs.modal, "Volume", v)
    monkeypatch.setenv("COMFYD_MODELS_DIR", str(tmp_path))
    monkeypatch.setenv("HUGGINGFACE_ACCESS_TOKEN", "hf_x")
    return v


@pytest.fixture
def server():
    with FileServer() as s:
        yield s


def test_the_list_is_downloaded_and_committed(server, volume, tmp_path, capsys):
    server.files["/a.pth"] = File(content(1000), linked=True)
    server.files["/b.pth"] = File(content(1000, 2), linked=True)
    wanted = (models.Model("vae", "a.pth", server.url("/a.pth")), models.Model("unet", "b.pth", server.url("/b.pth")))
    jobs.download_listed(models.to_entries(wanted), "weights")
    assert (tmp_path / "vae/a.pth").read_bytes() == content(1000)
    assert (tmp_path / "unet/b.pth").read_bytes() == content(1000, 2)
    assert volume.commits >= 1 and "all 2 models are on the Volume weights" in capsys.readouterr().out
    jobs.download_listed(models.to_entries(wanted), "weights")
    assert len(server.asked("/a.pth")) == 1


def test_one_more_model(server, volume, tmp_path):
    server.files["/x.safetensors"] = File(content(1000), linked=True)
    url = server.url("/x.safetensors")
    answer = json.loads(jobs.add_model(url, "loras", "style.safetensors", "", "weights"))
    assert answer["path"] == "loras/style.safetensors" and answer["size"] == 1000 and len(answer["sha256"]) == 64
    assert (tmp_path / "loras/style.safetensors").read_bytes() == content(1000) and volume.commits >= 1


@pytest.mark.parametrize(
    ("folder", "name", "words"), [("../..", "", "no folder"), ("loras", "../x.safetensors", "slashes")]
)
def test_one_more_model_cannot_leave_the_folder(server, volume, tmp_path, folder, name, words):
    with pytest.raises(DownloadError, match=words):
        jobs.add_model(server.url("/x.safetensors"), folder, name, "", "weights")
    assert not server.requests and list(tmp_path.iterdir()) == []

import json
import traceback
from functools import partialmethod

import pytest

from comfyd_modal import download, jobs, models, transfer
from comfyd_modal.download import DownloadError, Patience
from support_files import File, FileServer, content

SECRET = "?token=abc123&type=Model"


class Volume:
    """Stands for modal.Volume: what is committed, and when."""

    def __init__(self) -> None:
        self.commits = 0
        self.reloads: list[str] = []
        self._name = ""

    def from_name(self, name: str) -> "Volume":
        assert name == "weights"
        self._name = name
        return self

    def reload(self) -> None:
        self.reloads.append(self._name)

    def commit(self) -> None:
        self.commits += 1


class Cut:
    """Reads from a connection; the first time the rest is cut off."""

    def __init__(self, read):
        self._read = read
        self.done = False

    def __call__(self, answer, request):
        if not self.done and transfer.length(request.partial):
            self.done = True
            raise transfer.Interrupted("cut")
        return self._read(answer, request)


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


def written(folder) -> str:
    return " ".join(p.read_text() for p in (folder / ".comfyd").rglob("*") if p.suffix != ".partial" and p.is_file())


def test_a_token_in_an_address_is_neither_kept_nor_said(server, volume, tmp_path, capsys, monkeypatch):
    """Civitai's way. Another token is another address: its file is fetched again."""
    path = "/api/x.safetensors"
    url = server.url(path + SECRET).replace("http://", "http://me:pass1@")
    monkeypatch.setattr(download.Patience, "__init__", partialmethod(Patience.__init__, tries=1))
    server.files[path + SECRET] = File(content(1000), linked=True)
    monkeypatch.setattr("comfyd_modal.transfer._read", cut := Cut(transfer._read))
    with pytest.raises(DownloadError) as e:
        jobs.add_model(url, "loras", "", "", "weights")
    told = str(e.value) + "".join(traceback.format_exception(e.value))
    kept = written(tmp_path)
    assert "x.safetensors" in kept and cut.done
    jobs.add_model(url, "loras", "", "", "weights")
    asked = len(server.requests)
    jobs.add_model(url, "loras", "", "", "weights")
    assert len(server.requests) == asked, "it is known again by its address"
    kept += written(tmp_path)
    out = "".join(capsys.readouterr()) + told + kept
    assert "abc123" not in out and "pass1" not in out and "127.0.0.1" in kept


@pytest.mark.parametrize("status", [200, 401, 403, 404, 410, 418])
def test_a_token_in_an_address_is_in_no_refusal(server, volume, tmp_path, status):
    server.files["/x.safetensors" + SECRET] = File(b"<html>", status=status, type="text/html")
    with pytest.raises(DownloadError) as e:
        jobs.add_model(server.url("/x.safetensors" + SECRET), "loras", "", "", "weights")
    assert "abc123" not in str(e.value) and "127.0.0.1" in str(e.value)


@pytest.mark.parametrize("url", ["ftp://h/x.pth", "nonsense", "http://127.0.0.1:9/x.pth"])
def test_a_token_in_an_address_that_does_not_work_is_not_said(volume, monkeypatch, url):
    monkeypatch.setattr(download.Patience, "__init__", partialmethod(Patience.__init__, tries=1))
    with pytest.raises(DownloadError) as e:
        jobs.add_model(url + SECRET, "loras", "", "", "weights")
    assert "abc123" not in "".join(traceback.format_exception(e.value))


def test_the_build_reloads_the_volume_that_was_chosen(server, volume, monkeypatch):
    """A build step has none of the image's later environment, so that the name must be an argument."""
    monkeypatch.setattr("comfyd_modal.volume.modal.is_local", lambda: False)
    monkeypatch.delenv("COMFYD_MODAL_VOLUME", raising=False)
    jobs.download_listed([], "weights")
    assert volume.reloads == ["weights"]

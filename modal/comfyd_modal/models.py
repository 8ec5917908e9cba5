"""The list of models (../models.toml), and what of it lies on the Volume.

On the Volume: `<folder>/<name>` for each model, which appears only when it is complete and verified. In `.comfyd` are
its record (<name>.json: where it is from, size, hash) and what is on its way (<name>.partial).
"""

import json
import os
import re
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

OURS = ".comfyd"  # the folder of the Volume that is not ComfyUI's
LIST = Path(__file__).resolve().parent.parent / "models.toml"

# What ComfyUI's loaders list (folder_paths.supported_pt_extensions), and what packs load besides. Others are refused: a
# web page saved as a model is the usual mistake.
WEIGHTS = (".safetensors", ".sft", ".ckpt", ".pt", ".pt2", ".pth", ".bin", ".pkl", ".onnx", ".gguf")
SUFFIXES = (*WEIGHTS, ".yaml", ".json")

_FOLDER = re.compile(r"[a-z0-9][a-z0-9_]*")
_NAME = re.compile(r"[^/\\\0-\x1f.][^/\\\0-\x1f]{0,199}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class ModelError(ValueError):
    """A model cannot be what was asked for: its folder, name, address or hash. The message says what is allowed."""


@dataclass(frozen=True)
class Model:
    """One file that ComfyUI loads. size in bytes, 0 if not known; sha256 in lower-case hex, "" if not known."""

    folder: str
    name: str
    url: str
    size: int = 0
    sha256: str = ""

    @property
    def path(self) -> str:
        """Below the models' folder, with "/"."""
        return f"{self.folder}/{self.name}"


@dataclass(frozen=True)
class Models:
    """The whole list. `folders` are those of ComfyUI's that the Volume may have."""

    folders: tuple[str, ...]
    models: tuple[Model, ...]

    def one(self, url: str, folder: str, name: str = "", sha256: str = "", size: int = 0) -> Model:
        """A checked model; without a name it is called as in the address. ModelError says what is wrong."""
        if folder not in self.folders:
            raise ModelError(f"{folder!r} is no folder of ComfyUI's models; it may be {', '.join(self.folders)}")
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ModelError(
                f"{url.partition('?')[0]!r} is no address to download from; it must begin with https:// or http://"
            )
        name = name or unquote(parts.path).rsplit("/", 1)[-1]
        if not _NAME.fullmatch(name) or not name.lower().endswith(SUFFIXES):
            raise ModelError(
                f"{name!r} is no name for a model; it must end in one of {', '.join(SUFFIXES)}, without slashes"
            )
        if sha256 and not _SHA256.fullmatch(sha256.lower()):
            raise ModelError(f"{sha256!r} is no SHA-256; that has 64 hex digits")
        return Model(folder, name, url, size, sha256.lower())


@dataclass(frozen=True)
class Record:
    """What is known of a file that was downloaded and verified."""

    url: str  # as transfer.identity gives it: without a secret
    size: int
    sha256: str


def load(path: Path = LIST) -> Models:
    """Reads and checks the list. ModelError says what is wrong with it."""
    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except tomllib.TOMLDecodeError as e:
        raise ModelError(f"{path.name}: {e}") from None
    folders = tuple(str(f) for f in data.get("folders", []))
    for folder in folders:
        if not _FOLDER.fullmatch(folder):
            raise ModelError(
                f"{path.name}: {folder!r} is no name for a folder; small letters, digits and _ are allowed"
            )
    models: list[Model] = []
    for entry in data.get("model", []):
        try:
            model = Models(folders, ()).one(**{k: v for k, v in entry.items() if k != "licence"})
        except (ModelError, TypeError) as e:
            raise ModelError(f"{path.name}: {entry.get('name', entry)}: {e}") from None
        if model.path in (m.path for m in models):
            raise ModelError(f"{path.name}: {model.path} is there twice")
        models.append(model)
    return Models(folders, tuple(models))


def folder() -> Path:
    """Where this container has the Volume."""
    return Path(os.environ.get("COMFYD_MODELS_DIR") or "/models")


def to_entries(models: tuple[Model, ...]) -> list[dict]:
    """Models as plain values, for the arguments of a function."""
    return [asdict(model) for model in models]


def from_entries(entries: list[dict]) -> list[Model]:
    """The models again."""
    return [Model(**entry) for entry in entries]


def write_extra_model_paths(work_dir: Path, models_dir: Path, listed: Models | None = None) -> Path:
    """Writes the file for ComfyUI's --extra-model-paths-config: the Volume's folders under ComfyUI's own names."""
    listed = listed or load()
    lines = ["comfyd:", f"    base_path: {json.dumps(str(models_dir))}"]
    lines += [f"    {folder}: {folder}" for folder in listed.folders]
    path = Path(work_dir) / "extra_model_paths.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def present(models_dir: Path, listed: Models | None = None) -> list[dict]:
    """Every model that ComfyUI can load from the Volume: [{"folder", "name", "size"}], listed or added later."""
    listed = listed or load()
    found = []
    for folder in listed.folders:
        base = Path(models_dir) / folder
        for file in sorted(base.rglob("*")) if base.is_dir() else []:
            name = file.relative_to(base).as_posix()
            if file.is_file() and name.lower().endswith(SUFFIXES) and not file.name.startswith("."):
                found.append({"folder": folder, "name": name, "size": file.stat().st_size})
    return found


def missing(models_dir: Path, listed: Models | None = None) -> list[str]:
    """The listed models that are not on the Volume, or not as they were downloaded: ["unet/flux1-dev.safetensors"]."""
    listed = listed or load()
    return [row["path"] for row in status(models_dir, listed) if not row["present"]]


def status(models_dir: Path, listed: Models | None = None) -> list[dict]:
    """Each listed model: {"path", "present", "size", "wanted_size", "partial"}; bytes, 0 for none or not known."""
    rows = []
    for model in (listed or load()).models:
        record = read_record(models_dir, model)
        wanted = model.size or (record.size if record else 0)
        size = _size(Path(models_dir) / model.path)
        ok = size > 0 and (not wanted or size == wanted)
        partial = _size(partial_path(models_dir, model))
        rows.append({"path": model.path, "present": ok, "size": size, "wanted_size": wanted, "partial": partial})
    return rows


def read_record(models_dir: Path, model: Model) -> Record | None:
    """The record of a downloaded model, None if it has none."""
    try:
        return Record(**json.loads(record_path(models_dir, model).read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def write_record(models_dir: Path, model: Model, record: Record) -> None:
    """Keeps what is known of a model that is complete."""
    path = record_path(models_dir, model)
    new = path.with_suffix(".new")
    new.write_text(json.dumps(asdict(record)), "utf-8")
    os.replace(new, path)


def record_path(models_dir: Path, model: Model) -> Path:
    """Where a model's record is."""
    return Path(models_dir) / OURS / model.folder / f"{model.name}.json"


def partial_path(models_dir: Path, model: Model) -> Path:
    """Where the part of a model is that has arrived."""
    return Path(models_dir) / OURS / model.folder / f"{model.name}.partial"


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0

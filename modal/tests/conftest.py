"""What the tests of the Modal app share. COMFYD_TEST_COMFYUI_DIR names a real ComfyUI (scripts/comfyui.sh makes one)."""

import os
import sys
from pathlib import Path

import pytest

APP = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(APP))


@pytest.fixture(scope="session")
def comfyui_dir() -> Path:
    """A real ComfyUI's folder, not to be changed; the test is skipped without one."""
    folder = os.environ.get("COMFYD_TEST_COMFYUI_DIR", "")
    if not folder:
        pytest.skip("COMFYD_TEST_COMFYUI_DIR names no ComfyUI; `make test` sets it")
    return Path(folder)


@pytest.fixture(scope="session")
def comfyui_python(comfyui_dir: Path) -> str:
    """The interpreter of that ComfyUI."""
    return str(comfyui_dir / ".venv" / "bin" / "python")

"""What the operator chooses at deploy time, read from the environment.

This is the only reader of these variables. Modal takes many wrong values and fails hours later (a timeout of 0, a GPU
that does not exist), so everything is checked here against Modal's limits, and a wrong value stops the deploy with a
line that names the variable, the value and what is allowed. The limits are those of modal 1.6.4 and of Modal's guide
pages (timeouts, cold-start, gpu, region-selection, resources) as of November 2026.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass

DAY = 86400  # seconds; the longest a Modal function may run

# modal.com/docs/guide/gpu; "!" forbids and "+" allows Modal to give a better one.
GPUS = {
    "T4": 8,
    "L4": 8,
    "A10": 4,
    "A10G": 4,
    "L40S": 8,
    "A100": 8,
    "A100-40GB": 8,
    "A100-80GB": 8,
    "RTX-PRO-6000": 8,
    "H100": 8,
    "H100!": 8,
    "H200": 8,
    "B200": 8,
    "B200+": 8,
}
CONTINENTS = ("us", "eu", "uk", "ap", "ca", "sa", "me", "mx", "af", "jp", "au")

NAME = re.compile(r"[a-zA-Z0-9_.-]+")  # modal/_utils/name_utils.py
LONGEST_NAME = 64  # there, too
# Of an app: its Queue and its Dict are named after it (progress.py, ledger.py). internal/config knows it, too.
LONGEST_APP = LONGEST_NAME - len("-progress")
REGION = re.compile(rf"(?:{'|'.join(CONTINENTS)})(?:-[a-z]+(?:-\d+)?)?")


class SettingError(ValueError):
    """A variable has a value that Modal would refuse or misunderstand. One line, meant for the operator."""

    def __init__(self, variable: str, value: str, allowed: str):
        super().__init__(f"{variable}={value!r} is not possible: {allowed}")


@dataclass(frozen=True)
class Settings:
    """The deploy-time choices. Times are in seconds, memory is in MiB, CPU in physical cores."""

    app: str = "comfyd"
    gpu: tuple[str, ...] = ("L40S",)  # in order of preference
    cpu: float = 4.0
    memory: int = 40960
    timeout: int = 3600  # of one prompt
    startup_timeout: int = 600
    min_containers: int = 0
    max_containers: int = 8
    scaledown_window: int = 120  # how long an idle container stays
    region: tuple[str, ...] = ()  # Modal chooses when empty
    snapshot: bool = True  # of a container's memory, before it has a GPU
    gpu_snapshot: bool = False  # with ComfyUI on the GPU in it
    volume: str = "comfyd-models"

    def public(self) -> dict:
        """For the catalogue: what a client may know, as plain JSON."""
        return {**asdict(self), "gpu": ",".join(self.gpu), "region": ",".join(self.region)}

    def environment(self) -> dict[str, str]:
        """The variables that make `from_env` return this again; for containers, which import the app's file anew."""
        return {
            "MODAL_APP": self.app,
            "COMFYD_MODAL_GPU": ",".join(self.gpu),
            "COMFYD_MODAL_CPU": f"{self.cpu:g}",
            "COMFYD_MODAL_MEMORY": str(self.memory),
            "COMFYD_MODAL_TIMEOUT": str(self.timeout),
            "COMFYD_MODAL_STARTUP_TIMEOUT": str(self.startup_timeout),
            "COMFYD_MODAL_MIN_CONTAINERS": str(self.min_containers),
            "COMFYD_MODAL_MAX_CONTAINERS": str(self.max_containers),
            "COMFYD_MODAL_SCALEDOWN_WINDOW": str(self.scaledown_window),
            "COMFYD_MODAL_REGION": ",".join(self.region),
            "COMFYD_MODAL_SNAPSHOT": str(int(self.snapshot)),
            "COMFYD_MODAL_GPU_SNAPSHOT": str(int(self.gpu_snapshot)),
            "COMFYD_MODAL_VOLUME": self.volume,
        }


def from_env(env: Mapping[str, str] = os.environ) -> Settings:
    """What `env` asks for; an absent or empty variable leaves the default. SettingError names what is wrong."""
    read = _Reader(env)
    default = Settings()
    settings = Settings(
        app=read.name("MODAL_APP", default.app, LONGEST_APP),
        gpu=read.gpus("COMFYD_MODAL_GPU", default.gpu),
        cpu=read.number("COMFYD_MODAL_CPU", default.cpu, 0.125, 64),
        memory=read.integer("COMFYD_MODAL_MEMORY", default.memory, 128, 344064),
        timeout=read.integer("COMFYD_MODAL_TIMEOUT", default.timeout, 1, DAY),
        startup_timeout=read.integer("COMFYD_MODAL_STARTUP_TIMEOUT", default.startup_timeout, 1, DAY),
        min_containers=read.integer("COMFYD_MODAL_MIN_CONTAINERS", default.min_containers, 0, 1000),
        max_containers=read.integer("COMFYD_MODAL_MAX_CONTAINERS", default.max_containers, 1, 1000),
        scaledown_window=read.integer("COMFYD_MODAL_SCALEDOWN_WINDOW", default.scaledown_window, 2, 3600),
        region=read.regions("COMFYD_MODAL_REGION", default.region),
        snapshot=read.switch("COMFYD_MODAL_SNAPSHOT", default.snapshot),
        gpu_snapshot=read.switch("COMFYD_MODAL_GPU_SNAPSHOT", default.gpu_snapshot),
        volume=read.name("COMFYD_MODAL_VOLUME", default.volume),
    )
    if settings.min_containers > settings.max_containers:
        raise SettingError(
            "COMFYD_MODAL_MIN_CONTAINERS",
            str(settings.min_containers),
            f"it may not exceed COMFYD_MODAL_MAX_CONTAINERS, which is {settings.max_containers}",
        )
    if settings.gpu_snapshot and not settings.snapshot:
        raise SettingError(
            "COMFYD_MODAL_GPU_SNAPSHOT",
            "1",
            "a snapshot of the GPU is a part of one that COMFYD_MODAL_SNAPSHOT=0 forbids",
        )
    return settings


class _Reader:
    def __init__(self, env: Mapping[str, str]):
        self._env = env

    def text(self, variable: str) -> str:
        return self._env.get(variable, "").strip()

    def name(self, variable: str, default: str, longest: int = LONGEST_NAME) -> str:
        value = self.text(variable) or default
        if len(value) > longest or not NAME.fullmatch(value):
            raise SettingError(variable, value, f"1 to {longest} letters, digits, dashes, dots and underscores")
        return value

    def integer(self, variable: str, default: int, low: int, high: int) -> int:
        return int(self._within(variable, default, low, high, r"-?\d{1,9}", "a whole number"))

    def number(self, variable: str, default: float, low: float, high: float) -> float:
        return self._within(variable, default, low, high, r"-?\d{1,9}(\.\d+)?", "a number")

    def _within(self, variable: str, default: float, low: float, high: float, form: str, what: str) -> float:
        value = self.text(variable) or f"{default:g}"
        if not re.fullmatch(form, value) or not low <= float(value) <= high:
            raise SettingError(variable, value, f"{what} from {low:g} to {high:g}")
        return float(value)

    def switch(self, variable: str, default: bool) -> bool:
        value = self.text(variable) or str(int(default))
        if value not in ("0", "1"):
            raise SettingError(variable, value, "0 or 1")
        return value == "1"

    def gpus(self, variable: str, default: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(self._gpu(variable, part) for part in self._list(variable, default))

    def _gpu(self, variable: str, text: str) -> str:
        kind, colon, count = text.upper().partition(":")
        if kind not in GPUS:
            raise SettingError(
                variable, text, f"one of {', '.join(GPUS)}, or several with commas in order of preference"
            )
        if colon and (not re.fullmatch(r"\d", count) or not 1 <= int(count) <= GPUS[kind]):
            raise SettingError(variable, text, f"after the colon stands how many GPUs, for {kind} 1 to {GPUS[kind]}")
        return kind + colon + count

    def regions(self, variable: str, default: tuple[str, ...]) -> tuple[str, ...]:
        regions = tuple(part.lower() for part in self._list(variable, default))
        for region in regions:
            if not REGION.fullmatch(region):
                allowed = (
                    f"such as us, us-east or eu-west-1, beginning with {', '.join(CONTINENTS)}; several with commas"
                )
                raise SettingError(variable, region, allowed)
        return regions

    def _list(self, variable: str, default: tuple[str, ...]) -> tuple[str, ...]:
        value = self.text(variable)
        return tuple(part.strip() for part in value.split(",")) if value else default

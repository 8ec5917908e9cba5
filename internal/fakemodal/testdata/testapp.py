"""A small Modal app for the tests of fakemodal: a class and functions, one for each thing that a call can do."""

import asyncio
import os
import subprocess
import time

import modal

app = modal.App("testapp")
volume = modal.Volume.from_name("testapp-models", create_if_missing=True)
secret = modal.Secret.from_name("TESTAPP_SECRET", required_keys=["TESTAPP_SECRET"])
image = (
    modal.Image.debian_slim(python_version="3.11")
    .apt_install("git")
    .env({"TESTAPP_FROM_IMAGE": "it's set"})
    .run_commands("echo building > /built", secrets=[secret])
)
time.sleep(float(os.environ.get("TESTAPP_SLOW_IMPORT", "0")))
marks = os.environ.get("TESTAPP_MARKS", "/nonexistent")


def mark(what: str) -> None:
    """Appends a line to the file that the test reads."""
    with open(marks, "a") as f:
        f.write(f"{what}\n")


def over(end: float, until: str) -> bool:
    """Whether a sleep is: the time has come, or the test has made the file `until`."""
    return time.time() >= end or (until != "" and os.path.exists(until))


@app.cls(
    image=image,
    gpu=["L40S", "A100-80GB"],
    cpu=4,
    memory=40960,
    volumes={"/models": volume},
    timeout=600,
    startup_timeout=120,
    scaledown_window=60,
    max_containers=2,
    enable_memory_snapshot=True,
    region="us-east",
)
class Worker:
    """What ComfyUI is in the product."""

    @modal.enter(snap=True)
    def before(self) -> None:
        mark("enter before")
        if os.environ.get("TESTAPP_FAIL_START"):
            raise RuntimeError("no engine")

    @modal.enter(snap=False)
    def after(self) -> None:
        mark("enter after")
        self.served = 0

    @modal.exit()
    def leave(self) -> None:
        mark("exit")

    @modal.method()
    def echo(self, value: object) -> dict:
        self.served += 1
        return {
            "value": value,
            "served": self.served,
            "call": modal.current_function_call_id(),
            "task": os.environ["MODAL_TASK_ID"],
            "image": os.environ["TESTAPP_FROM_IMAGE"],
            "local": modal.is_local(),
            "pid": os.getpid(),
        }

    @modal.method()
    def big(self, size: int) -> bytes:
        return b"x" * size

    @modal.method()
    def fail(self) -> None:
        raise ValueError("on purpose")

    @modal.method()
    def sleep(self, seconds: float, until: str = "") -> str:
        mark("start")
        end = time.time() + seconds
        try:
            while not over(end, until):
                time.sleep(0.02)
        except BaseException as e:
            mark(type(e).__name__)
            raise
        return "slept"

    @modal.method()
    async def sleep_async(self, seconds: float, until: str = "") -> str:
        mark("start")
        end = time.time() + seconds
        try:
            while not over(end, until):
                await asyncio.sleep(0.02)
        except BaseException as e:
            mark(type(e).__name__)
            raise
        return "slept"

    @modal.method()
    def stubborn(self, seconds: float, until: str = "") -> str:
        mark("start")
        end = time.time() + seconds
        while True:
            try:
                while not over(end, until):
                    time.sleep(0.1)
                return "stubborn"
            except BaseException:
                mark("ignored")

    @modal.method()
    def last(self) -> str:
        modal.experimental.stop_fetching_inputs()
        return os.environ["MODAL_TASK_ID"]

    @modal.method()
    def breed(self) -> int:
        """Leaves a process in a session of its own, as a badly behaved one would be."""
        return subprocess.Popen(["sleep", "1000"], start_new_session=True).pid

    @modal.method()
    def store(self, name: str, text: str) -> None:
        path = os.path.join(os.environ["TESTAPP_MODELS"], name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as f:
            f.write(text)
        volume.commit()
        volume.reload()

    @modal.method()
    def claim(self, key: str) -> list:
        ledger = modal.Dict.from_name("testapp-ledger", create_if_missing=True)
        mine = modal.current_function_call_id()
        return [ledger.put(key, mine, skip_if_exists=True), ledger.get(key) == mine]

    @modal.method()
    def tell(self, partition: str, count: int) -> None:
        channel = modal.Queue.from_name("testapp-progress", create_if_missing=True)
        for i in range(count):
            channel.put(f"news {i}", partition=partition, partition_ttl=60)


@app.function(image=image, secrets=[secret])
def peek() -> str:
    """What a function without a GPU sees."""
    print("seen by peek")
    return os.environ["TESTAPP_SECRET"]


@app.function(image=image)
def relay(call_id: str) -> str:
    """Follows another call from inside a container."""
    return modal.FunctionCall.from_id(call_id).get(timeout=120)["task"]


@app.function(image=image)
def spawn_echo(value: str) -> str:
    """Calls the class by its name, as any Python client does."""
    worker = modal.Cls.from_name("testapp", "Worker")()
    call = worker.echo.spawn(value)
    return call.get(timeout=120)["value"] + " " + worker.echo.remote(value)["value"]


@app.function(image=image, startup_timeout=1)
def hasty() -> str:
    """Has a second to start."""
    return "in time"

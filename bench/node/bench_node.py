"""Nodes of the benchmark, installed into its own ComfyUI only. They take time as a GPU does: the interpreter is free meanwhile."""

import os
import time

import comfy.model_management
import torch

HERE = os.path.dirname(os.path.abspath(__file__))


def picture():
    return (torch.zeros(1, 64, 64, 3),)


class BenchWork:
    """Takes a while, and notes from when to when."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"
    CATEGORY = "bench"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"seconds": ("FLOAT", {"default": 0.1}), "mark": ("INT", {"default": 0, "max": 1 << 40})}}

    def run(self, seconds, mark):
        began = time.monotonic()
        time.sleep(seconds)
        ended = time.monotonic()
        with open(os.path.join(HERE, "work.log"), "a") as log:
            log.write(f"{mark} {began:.6f} {ended:.6f}\n")
        return picture()


class BenchGate:
    """Holds until the gate of that number is opened: a file beside this one."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"
    CATEGORY = "bench"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"mark": ("INT", {"default": 0, "max": 1 << 40})}}

    def run(self, mark):
        while not os.path.exists(os.path.join(HERE, f"open-{mark}")):
            comfy.model_management.throw_exception_if_processing_interrupted()
            time.sleep(0.005)
        return picture()


NODE_CLASS_MAPPINGS = {"BenchWork": BenchWork, "BenchGate": BenchGate}

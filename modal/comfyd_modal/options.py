"""The arguments of `ComfyUI.run`, read and checked."""

import json
import math
import uuid
from dataclasses import dataclass, field
from typing import Any

from .errors import UserError

# Of prompt IDs that are made from a job's ID. It has no meaning of its own.
NAMESPACE = uuid.UUID("6d0b7c0c-0b5e-5f0e-9c53-3a1f4d2f5c11")


@dataclass(frozen=True)
class Options:
    """The fields of options_json; the contract with Go (modal/) says what they mean."""

    prompt_id: str
    extra_pnginfo: dict[str, Any] | None = None
    sockets: frozenset[str] = field(default_factory=frozenset)
    stall_timeout: float = 600.0
    progress: bool = True
    previews: bool = False  # among the progress


def read_options(text: str, job_id: str) -> Options:
    """UserError (internal) for what is no set of options: they are the caller's code, not the user's workflow."""
    try:
        raw = json.loads(text or "{}")
        prompt_id = raw.get("prompt_id") or str(uuid.uuid5(NAMESPACE, job_id))
        # Newer versions of ComfyUI take canonical UUIDs only.
        if str(uuid.UUID(prompt_id)) != prompt_id:
            raise ValueError(f"prompt_id {prompt_id!r} is not a canonical lower-case UUID")
        png = raw.get("extra_pnginfo")
        if png is not None and not isinstance(png, dict):
            raise ValueError("extra_pnginfo is not an object")
        stall = float(raw.get("stall_timeout") or 600)
        if not (math.isfinite(stall) and stall > 0):
            raise ValueError("stall_timeout is not a number of seconds")
        sockets = frozenset(map(str, raw.get("sockets") or ()))
        told = bool(raw.get("progress", True)), bool(raw.get("previews", False))
        return Options(prompt_id, png, sockets, stall, *told)
    except (ValueError, TypeError, AttributeError) as e:
        raise UserError("internal", f"options_json cannot be read: {e}") from None


def read_workflow(text: str) -> dict[str, Any]:
    """The graph; UserError (invalid_workflow) for what is none. Integers keep all their digits."""
    try:
        graph = json.loads(text, parse_constant=_refuse, parse_float=_number)
    except (ValueError, TypeError, RecursionError) as e:
        raise UserError("invalid_workflow", f"the workflow is not JSON: {e}") from None
    if not isinstance(graph, dict):
        raise UserError("invalid_workflow", "the workflow is not an object of nodes")
    return graph


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is not a number in JSON")


def _number(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"the number {digits} is too large")
    return value

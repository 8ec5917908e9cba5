"""Who runs which prompt: the record by which a prompt_id runs in one call only, however often it is spawned.

A modal.Dict, prompt_id -> "<call ID> <ID of its first container>", or BARRED, and prompt_id/starts -> how often that
call has begun it, where that is more than once. Its put with skip_if_exists is atomic at Modal.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

import modal

from . import settings
from .errors import LedgerAway

BARRED = ""  # in place of a call ID: the prompt may never run any more
PATIENCE = 30.0  # seconds for one question


def open_book() -> modal.Dict:
    """The app's ledger; it is made when it is first used."""
    return modal.Dict.from_name(f"{settings.from_env().app}-ledger", create_if_missing=True)


@dataclass(frozen=True)
class Claim:
    """What the ledger says about a prompt after a call has asked for it."""

    mine: bool
    holder: str  # the call that has it, BARRED for none ever
    starts: int = 1  # how often the call has begun the prompt, this time included


async def claim(book: Any, prompt_id: str, call_id: str, container: str) -> Claim:
    """Enters a prompt for a call that has begun in a container, unless it is entered already.

    The same call may claim again: Modal starts an input anew after it has taken its container away (preemption), or
    the container has crashed, without end (modal.com/docs/guide/retries). That is counted. Each time is in another
    container, so an entry by this very one is no new start: the SDK has asked again, because an answer was lost.
    LedgerAway when the ledger does not answer.
    """
    try:
        async with asyncio.timeout(2 * PATIENCE):
            entry = None
            while entry is None:  # between the two questions the entry may expire
                if await book.put.aio(prompt_id, f"{call_id} {container}", skip_if_exists=True):
                    return Claim(True, call_id)
                entry = await book.get.aio(prompt_id)
            holder, first = _read(entry)
            if holder != call_id:
                return Claim(False, holder)
            if first == container:
                return Claim(True, holder)
            starts = (await book.get.aio(f"{prompt_id}/starts") or 1) + 1
            await book.put.aio(f"{prompt_id}/starts", starts)
            return Claim(True, holder, starts)
    except Exception as e:
        raise LedgerAway(
            f"the ledger of prompts does not answer, and without it the prompt might run twice: {e!r}"
        ) from None


def locate(prompt_id: str, bar: bool = False, book: Any = None) -> str:
    """The ID of the call that has claimed a prompt, "" for none.

    With bar, a prompt that nobody has claimed can never be claimed any more. `book` is the app's own where it is not
    given. Errors are Modal's.
    """
    book = book or open_book()
    if bar and book.put(prompt_id, BARRED, skip_if_exists=True):
        return ""
    return _read(book.get(prompt_id) or BARRED)[0]


def _read(entry: str) -> tuple[str, str]:
    call_id, _, container = entry.partition(" ")
    return call_id, container

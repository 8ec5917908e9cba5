"""Who may run a prompt."""

import asyncio
from typing import Any

import pytest
from support_graphs import Book

from comfyd_modal import ledger
from comfyd_modal.errors import LedgerAway
from comfyd_modal.ledger import Claim, claim, locate


def test_the_first_call_has_it_and_keeps_it() -> None:
    book = Book()
    assert asyncio.run(claim(book, "p", "fc-1", "ta-1")) == Claim(True, "fc-1")
    assert asyncio.run(claim(book, "p", "fc-2", "ta-2")) == Claim(False, "fc-1")
    assert asyncio.run(claim(book, "p", "fc-1", "ta-3")) == Claim(True, "fc-1", 2), "Modal has started the input anew"
    assert asyncio.run(claim(book, "p", "fc-1", "ta-4")) == Claim(True, "fc-1", 3)
    assert asyncio.run(claim(book, "p", "fc-2", "ta-5")) == Claim(False, "fc-1")
    assert locate("p", book=book) == "fc-1"
    assert locate("p", True, book) == "fc-1", "too late to bar it"


def test_a_first_answer_that_is_lost_is_no_second_start() -> None:
    """The SDK asks again by itself, and finds what it has entered."""
    book = Book()
    put = book.put.aio

    async def twice(*args: Any, **kwargs: Any) -> bool:
        await put(*args, **kwargs)
        return await put(*args, **kwargs)

    book.put.aio = twice  # type: ignore[method-assign]
    assert asyncio.run(claim(book, "p", "fc-1", "ta-1")) == Claim(True, "fc-1", 1)
    assert asyncio.run(claim(book, "p", "fc-1", "ta-2")) == Claim(True, "fc-1", 2)


def test_a_barred_prompt_is_nobodys() -> None:
    book = Book()
    assert locate("p", book=book) == ""
    assert locate("p", True, book) == ""
    assert locate("p", True, book) == ""
    assert asyncio.run(claim(book, "p", "fc-1", "ta-1")) == Claim(False, ledger.BARRED)


def test_an_entry_that_expires_between_the_questions_is_claimed_after_all() -> None:
    book = Book()
    book.entries["p"] = "fc-old"

    async def expire() -> None:
        if seen:
            book.entries.pop("p", None)
        seen.append(1)

    seen: list[int] = []
    book.put._pause = book.get._pause = expire
    assert asyncio.run(claim(book, "p", "fc-1", "ta-1")) == Claim(True, "fc-1")


@pytest.mark.parametrize("hang", [False, True])
def test_without_the_ledger_nothing_runs(hang: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "PATIENCE", 0.05)

    async def pause() -> None:
        if hang:
            await asyncio.sleep(30)
        raise ConnectionError("no way")

    with pytest.raises(LedgerAway, match="ledger"):
        asyncio.run(claim(Book(pause), "p", "fc-1", "ta-1"))

"""Items that a thread makes ahead of their use."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from adaptok.video.read_ahead import read_ahead


def test_items_keep_their_order_and_are_made_in_a_thread():
    threads = set()

    def items() -> Iterator[int]:
        for index in range(20):
            threads.add(threading.get_ident())
            yield index

    with read_ahead(items(), 3) as made:
        assert list(made) == list(range(20))
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_an_error_is_raised_where_the_item_would_be_used():
    def items() -> Iterator[int]:
        yield 1
        raise FileNotFoundError("removed")

    with read_ahead(items(), 4) as made:
        assert next(made) == 1
        with pytest.raises(FileNotFoundError, match="removed"):
            next(made)


def test_leaving_early_stops_the_thread_and_closes_the_items():
    made_so_far, closed = [], threading.Event()

    def items() -> Iterator[int]:
        try:
            for index in range(1000):
                made_so_far.append(index)
                yield index
        finally:
            closed.set()

    before = threading.active_count()
    with read_ahead(items(), 2) as made:
        assert next(made) == 0
    assert closed.wait(10)
    assert threading.active_count() == before
    assert len(made_so_far) < 10

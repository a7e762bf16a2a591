"""Array code over shards in a few threads: results in order, never more shards in memory than threads."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def in_threads(function: Callable[[Item], Made], items: Iterable[Item], threads: int = 2) -> Iterator[Made]:
    """`function` of every item, in the order of the items; an error is raised where its result is due."""
    if threads == 1:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(threads) as pool:
        running: deque[Future[Made]] = deque()
        for item in items:
            running.append(pool.submit(function, item))
            if len(running) == threads:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()

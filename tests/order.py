"""The order in which tests run: the longest first, so that no worker ends with one."""

from __future__ import annotations

from itertools import islice
from typing import Protocol, TypeVar

USUAL_S = 10.0
"""Of a test that is marked as slow without its seconds."""


class Marked(Protocol):
    """What pytest knows a test by, as far as it is asked here."""

    def get_closest_marker(self, name: str) -> object | None: ...


ItemT = TypeVar("ItemT", bound=Marked)


def seconds(item: Marked) -> float:
    """Return about how long a test takes: 0 for all that are not marked as slow."""
    marker = item.get_closest_marker("slow")
    if marker is None:
        return 0.0
    given = getattr(marker, "args", ())
    return float(given[0]) if given else USUAL_S


def longest_first(items: list[ItemT], workers: int) -> list[ItemT]:
    """Return tests so that the share of every worker begins with its slow ones.

    xdist cuts the list into equal shares, in order, and workers that are done take from
    the end of the others'. All else stays in the order that it was in.

    Parameters
    ----------
    items : list
        Tests in any order.
    workers : int
        How many run at a time.
    """
    slow = sorted((i for i in items if seconds(i)), key=seconds, reverse=True)
    rest = iter([i for i in items if not seconds(i)])
    ordered: list[ItemT] = []
    for k in range(workers):
        end = len(items) * (k + 1) // workers
        ordered += slow[k::workers]
        ordered += islice(rest, max(0, end - len(ordered)))
    return ordered + list(rest)

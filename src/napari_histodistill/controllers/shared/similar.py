"""Find similar: what was clicked, the heatmap, the ranked places, their thumbnails."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from napari_histodistill.controllers.shared.job import Work
    from napari_histodistill.maps.alike.ranking import RankedRegion
    from napari_histodistill.maps.alike.similarity import SimilarityIndex, SimilarityMap
    from napari_histodistill.running import CancelToken
    from napari_histodistill.slides import Slide, TileGrid

LISTED = 20
"""Thumbnails on screen."""

COUNTED = 200
"""Places are counted up to here; more than that is "200+"."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One click: level-0 pixels (edge convention), and like or not like."""

    y: float
    x: float
    like: bool


@dataclass(frozen=True, slots=True)
class Prompts:
    """The clicks of a query, in order; frozen, so a query can hold on to them."""

    items: tuple[Prompt, ...] = ()

    @property
    def at(self) -> list[tuple[float, float]]:
        """Like this."""
        return [(p.y, p.x) for p in self.items if p.like]

    @property
    def not_at(self) -> list[tuple[float, float]]:
        """Not like this."""
        return [(p.y, p.x) for p in self.items if not p.like]

    def added(self, prompt: Prompt) -> Prompts:
        """Return the prompts with one more.

        Raises
        ------
        InputError
            If the first prompt is a "not like this".
        """
        if not prompt.like and not self.at:
            msg = "Click on what you look for first, then Shift-click what it is not."
            raise InputError(msg)
        return replace(self, items=(*self.items, prompt))

    def removed(self, index: int) -> Prompts:
        """Return the prompts without one; without a "like this" nothing is left."""
        left = Prompts(self.items[:index] + self.items[index + 1 :])
        return left if left.at else Prompts()


@dataclass(frozen=True, slots=True)
class AcrossFacts:
    """A question that was asked of several slides.

    Attributes
    ----------
    asked_on : str
        Name of the slide that was clicked.
    prompts : Prompts
        The clicks there.
    slides : int
        How many were searched: similarities are those among all of them.
    """

    asked_on: str
    prompts: Prompts
    slides: int


@dataclass(frozen=True, slots=True)
class SimilarResult:
    """An answer to a query.

    Attributes
    ----------
    prompts : Prompts
        The question; an answer to an older question is dropped.
    similarity : SimilarityMap
        Values over the grid.
    threshold : float
        Below, nothing is shown.
    ranked : tuple of RankedRegion
        Best first, at most :data:`COUNTED`.
    across : AcrossFacts or None
        Where it was asked, of how many slides; None if of this one only.
    """

    prompts: Prompts
    similarity: SimilarityMap
    threshold: float
    ranked: tuple[RankedRegion, ...]
    across: AcrossFacts | None = None

    def at(self, threshold: float) -> SimilarResult:
        """Return the same answer shown from another value on, not ranked again."""
        return replace(self, threshold=threshold)


@dataclass(frozen=True, slots=True)
class IndexBuilt:
    """An index over the cells that were done when it was built."""

    index: SimilarityIndex = field(repr=False)
    cells: int


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A picture of a ranked place, ``(px, px, 3)`` uint8."""

    rank: int
    image: npt.NDArray[np.uint8] = field(repr=False)


def query_work(
    prompts: Prompts,
    *,
    store_path: Path,
    index: SimilarityIndex | None,
    cells: int,
) -> Work:
    """Answer a query; builds the index first where there is none yet.

    ``cells`` is how many cells the asker knows to be done: the index has those at
    least, and is stale once there are more.
    """

    def work(cancel: CancelToken) -> Iterator[IndexBuilt | SimilarResult]:
        from napari_histodistill.maps.alike.ranking import (
            rank_regions,
            suggest_threshold,
        )
        from napari_histodistill.maps.alike.similarity import SimilarityIndex
        from napari_histodistill.maps.store import EmbeddingStore

        ready = index
        if ready is None:
            ready = SimilarityIndex.from_store(EmbeddingStore.open(store_path))
            yield IndexBuilt(ready, cells)
        cancel.check()
        similarity = ready.query(prompts.at, prompts.not_at)
        threshold = suggest_threshold(similarity)
        cancel.check()
        ranked = rank_regions(similarity, threshold=threshold, limit=COUNTED)
        yield SimilarResult(prompts, similarity, threshold, ranked)

    return work


def rank_work(result: SimilarResult, threshold: float) -> Work:
    """Rank again with another threshold."""

    def work(cancel: CancelToken) -> Iterator[SimilarResult]:
        from napari_histodistill.maps.alike.ranking import rank_regions

        cancel.check()
        ranked = rank_regions(result.similarity, threshold=threshold, limit=COUNTED)
        yield replace(result, threshold=threshold, ranked=ranked)

    return work


def thumbnail_work(
    slide: Slide, grid: TileGrid, ranked: Sequence[RankedRegion], *, px: int
) -> Work:
    """Read a picture around each ranked place, the best first."""
    places = tuple(ranked[:LISTED])

    def work(cancel: CancelToken) -> Iterator[Thumbnail]:
        from napari_histodistill.maps.alike.ranking import frame_around
        from napari_histodistill.slides.pyramid.resample import read_resampled

        for place in places:
            cancel.check()
            around = frame_around(grid, place)
            yield Thumbnail(
                place.rank, read_resampled(slide, around, height=px, width=px)
            )

    return work


def places_in_words(ranked: Sequence[RankedRegion]) -> str:
    """Return "38 places", "1 place", "no place", "200+ places"."""
    n = len(ranked)
    if not n:
        return "no place"
    if n >= COUNTED:
        return f"{COUNTED}+ places"
    return f"{n} place{'s' * (n != 1)}"


def threshold_range(similarity: SimilarityMap) -> tuple[float, float]:
    """Return the lowest and highest similarity there is."""
    return float(np.nanmin(similarity.values)), float(np.nanmax(similarity.values))

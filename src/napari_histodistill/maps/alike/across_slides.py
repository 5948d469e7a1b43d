"""Where on several slides the tissue looks like chosen places, or like a picture.

The definition is that of :mod:`~napari_histodistill.maps.alike.similarity`, but for the
mean that is taken away: it is that of the slides' mean embeddings, each slide with the
same weight. A slide that is all tumour then stays unlike one without any, which it
would not if each were centred by its own mean. (Of the ten patches of other patients
that were found most similar, .759 had the class of the patch that was asked for, .757
without centring and .754 with each patient's own mean; 1,356 patches of breast of 40
patients, ``colon-he``; .750, .742 and .734 with frozen ImageNet features.)

Embeddings are read from their stores for every question and never held: memory does not
grow with the slides, but for a number per square.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.errors import InputError
from napari_histodistill.maps.alike.ranking import (
    RankedRegion,
    rank_regions,
    threshold_of,
)
from napari_histodistill.maps.alike.similarity import (
    SimilarityMap,
    not_computed,
    query_of,
    refuse_all_same,
    unit_rows,
)
from napari_histodistill.maps.store import CellStatus, EmbeddingStore
from napari_histodistill.running import CancelToken

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from napari_histodistill.maps.provenance import Provenance

RANKED = 200
"""Places of one slide that are ranked at most."""


@dataclass(frozen=True, slots=True)
class PlaceOf:
    """A place on one of several slides.

    Attributes
    ----------
    store : Path
        Embeddings of the slide.
    y, x : float
        Level-0 pixels.
    """

    store: Path
    y: float
    x: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SlidesQuery:
    """What is looked for: at least one place or picture.

    Attributes
    ----------
    at, not_at : tuple of PlaceOf
        "Like this" and "not like this", on any of the slides.
    pictures : ndarray or None
        ``(n, dim)`` float32, embeddings of more that is looked for.
    """

    at: tuple[PlaceOf, ...] = ()
    not_at: tuple[PlaceOf, ...] = ()
    pictures: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SlideAnswer:
    """What was found on one slide.

    Attributes
    ----------
    store : Path
        Its embeddings.
    made_by : Provenance
        Slide and student.
    similarity : SimilarityMap
        Similarity of every cell; comparable between the slides of one search.
    ranked : tuple of RankedRegion
        Its places at or above the search's threshold, best first, at most
        :data:`RANKED`.
    best : float or None
        The highest similarity of a cell; None if nothing is computed.
    area_mm2 : float
        Area of the cells at or above the threshold.
    squares : int
        Cells that were compared.
    """

    store: Path
    made_by: Provenance
    similarity: SimilarityMap = field(repr=False)
    ranked: tuple[RankedRegion, ...]
    best: float | None
    area_mm2: float
    squares: int


@dataclass(frozen=True, slots=True)
class FoundPlace:
    """A place among those of all slides.

    Attributes
    ----------
    rank : int
        1 is the most similar of all slides.
    answer : SlideAnswer
        Its slide.
    place : RankedRegion
        Where on it; its ``rank`` is that on its own slide.
    """

    rank: int
    answer: SlideAnswer
    place: RankedRegion


@dataclass(frozen=True, slots=True)
class SearchProgress:
    """How far a search is: steps done, of how many."""

    done: int
    total: int


@dataclass(frozen=True, slots=True, eq=False)
class SlidesSearched:
    """The answer to a search.

    Attributes
    ----------
    threshold : float
        From which similarity on a cell counts, on all slides.
    slides : tuple of SlideAnswer
        In the order of the stores.
    """

    threshold: float
    slides: tuple[SlideAnswer, ...]

    def places(self, limit: int) -> tuple[FoundPlace, ...]:
        """Return the best places of all slides, at most ``limit``; ties keep order."""
        found = [(answer, place) for answer in self.slides for place in answer.ranked]
        found.sort(key=lambda one: -one[1].score)
        return tuple(
            FoundPlace(rank, answer, place)
            for rank, (answer, place) in enumerate(found[:limit], 1)
        )


def ranked_from(
    found: SlidesSearched, threshold: float, cancel: CancelToken
) -> SlidesSearched:
    """Return the same answer with its places ranked from another similarity on.

    Parameters
    ----------
    found : SlidesSearched
        An answer.
    threshold : float
        From which similarity on a cell counts.
    cancel : CancelToken
        Checked before every slide.

    Raises
    ------
    Cancelled
        If the token asked for it.
    """
    answers = []
    for one in found.slides:
        cancel.check()
        answers.append(_answer(one.store, one.made_by, one.similarity, threshold))
    return SlidesSearched(threshold, tuple(answers))


class SlideMeans:
    """Mean embeddings of stores, kept so that a second question reads each store once.

    A store that has been added to is read again.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[Path, str, int], npt.NDArray[np.float64]] = {}

    def of(
        self, store: EmbeddingStore, cancel: CancelToken
    ) -> npt.NDArray[np.float64] | None:
        """Return the mean embedding of a store's computed cells; None if it has none.

        Parameters
        ----------
        store : EmbeddingStore
            Of a slide.
        cancel : CancelToken
            Checked several times a second.

        Returns
        -------
        ndarray or None
            ``(dim,)`` float64.
        """
        done = store.status == CellStatus.DONE
        count = int(done.sum())
        if not count:
            return None
        key = store.path, store.key, count
        if key not in self._known:
            total = np.zeros(store.dim)
            for rows in _rows(store, done, cancel):
                total += rows.sum(axis=0, dtype=np.float64)
            self._known[key] = total / count
        return self._known[key]


def search_slides(
    stores: Sequence[Path],
    query: SlidesQuery,
    *,
    threshold: float | None = None,
    means: SlideMeans | None = None,
    cancel: CancelToken | None = None,
) -> Iterator[SearchProgress | SlidesSearched]:
    """Search several slides for what looks like places or pictures, as defined above.

    Parameters
    ----------
    stores : sequence of Path
        Embeddings of the slides, all by the same student in the same mode; their grids
        may differ. Unfinished ones are searched as far as they are computed.
    query : SlidesQuery
        What is looked for.
    threshold : float, optional
        From which similarity on a place is listed; by default that of
        :func:`~napari_histodistill.maps.alike.ranking.suggest_threshold` for the cells
        of all slides.
    means : SlideMeans, optional
        Kept from an earlier search of these slides.
    cancel : CancelToken, optional
        Checked several times a second.

    Yields
    ------
    SearchProgress
        After every slide.
    SlidesSearched
        The answer, last.

    Raises
    ------
    InputError
        If the stores do not belong together, a place has no embedding, or the places
        leave nothing to search for.
    StoreError
        If a store is damaged.
    Cancelled
        If the token asked for it.

    Examples
    --------
    >>> from pathlib import Path
    >>> from napari_histodistill import embed_slide, load_student, open_slide
    >>> from napari_histodistill.maps import PlaceOf, SlidesQuery, search_slides
    >>> from napari_histodistill.samples import ihc_sample
    >>> student = load_student("colon-he", device="cpu:torch")
    >>> with open_slide(ihc_sample()) as slide:
    ...     *_, last = embed_slide(slide, student, "colon.zarr")
    >>> store = Path("colon.zarr")
    >>> *_, found = search_slides([store], SlidesQuery(at=(PlaceOf(store, 100, 100),)))
    >>> best, *_ = found.places(limit=5)
    >>> best.rank, best.place.is_query, round(best.place.score, 3)
    (1, True, 1.0)
    """
    token, known = cancel or CancelToken(), means or SlideMeans()
    opened = [EmbeddingStore.open(path) for path in stores]
    _check_kin(opened)
    total = 2 * len(opened)
    centres = []
    for k, store in enumerate(opened, 1):
        centres.append(known.of(store, token))
        yield SearchProgress(k, total)
    centre = _mean_of_means(centres)
    wanted = _vector(opened, query, centre)
    maps, longest = [], 0.0
    for k, store in enumerate(opened, 1):
        values, length = _compared(store, wanted, centre, token)
        longest = max(longest, length)
        maps.append(_as_map(store, values, query))
        yield SearchProgress(len(opened) + k, total)
    refuse_all_same(longest, centre)
    if threshold is None:
        cells = [found.values[np.isfinite(found.values)] for found in maps]
        threshold = threshold_of(np.concatenate(cells))
    answers = []
    for store, found in zip(opened, maps, strict=True):
        token.check()
        answers.append(_answer(store.path, store.provenance, found, threshold))
    yield SlidesSearched(threshold, tuple(answers))


def _check_kin(stores: Sequence[EmbeddingStore]) -> None:
    """Refuse stores that do not belong into one search."""
    if not stores:
        msg = "There is nothing to search: give stores made by `histodistill embed`."
        raise InputError(msg)
    first = stores[0]
    seen: dict[str, Path] = {}
    for store in stores:
        mine, its = store.provenance, first.provenance
        if mine.stains and mine.student_digest != its.student_digest:
            msg = (
                f"{store.path} was stain normalised, every slide in a way of its own: "
                "search stores that were made without it."
            )
            raise InputError(msg)
        if (mine.student_digest, mine.mode) != (its.student_digest, its.mode):
            msg = (
                f"{store.path} was made by {mine.who} in {mine.mode}, {first.path} by "
                f"{its.who} in {its.mode}: their numbers cannot be compared; search "
                "stores of one student and mode."
            )
            raise InputError(msg)
        if store.dim != first.dim:
            msg = (
                f"{store.path} holds {store.dim} numbers per square, {first.path} "
                f"{first.dim}: one of them is damaged; compute it again."
            )
            raise InputError(msg)
        twin = seen.setdefault(mine.slide_digest, store.path)
        if twin != store.path:
            msg = f"{store.path} and {twin} are of the same slide; give one of them."
            raise InputError(msg)


def _rows(
    store: EmbeddingStore, done: npt.NDArray[np.bool_], cancel: CancelToken
) -> Iterator[npt.NDArray[np.float32]]:
    """Yield the computed cells' embeddings ``(k, dim)`` in row order, slab by slab."""
    for block in store.slabs():
        cancel.check()
        yield store.read(block)[done[block]].astype(np.float32)


def _mean_of_means(
    means: Sequence[npt.NDArray[np.float64] | None],
) -> npt.NDArray[np.float32]:
    known = [mean for mean in means if mean is not None]
    if not known:
        msg = "Nothing has been computed yet: run the student first."
        raise InputError(msg)
    return np.asarray(np.mean(known, axis=0), np.float32)


def _vector(
    stores: Sequence[EmbeddingStore],
    query: SlidesQuery,
    centre: npt.NDArray[np.float32],
) -> npt.NDArray[np.float32]:
    """Return the unit vector to compare with."""
    like, unlike = _embeddings(stores, query.at), _embeddings(stores, query.not_at)
    if query.pictures is not None:
        like = np.concatenate([like, query.pictures])
    return query_of(unit_rows(like - centre)[0], unit_rows(unlike - centre)[0])


def _embeddings(
    stores: Sequence[EmbeddingStore], places: Sequence[PlaceOf]
) -> npt.NDArray[np.float32]:
    """Return the embeddings at places, ``(places, dim)``."""
    by_path = {store.path: store for store in stores}
    found = np.empty((len(places), stores[0].dim), np.float32)
    for k, place in enumerate(places):
        store = by_path.get(place.store)
        if store is None:
            msg = f"{place.store} is not among the stores that are searched; add it."
            raise InputError(msg)
        row, column = store.grid.cell_at(place.y, place.x)
        if store.status[row, column] != CellStatus.DONE:
            msg = f"{store.path}: {not_computed(place.y, place.x)}"
            raise InputError(msg)
        cell = slice(row, row + 1), slice(column, column + 1)
        found[k] = store.read(cell)[0, 0]
    return found


def _compared(
    store: EmbeddingStore,
    wanted: npt.NDArray[np.float32],
    centre: npt.NDArray[np.float32],
    cancel: CancelToken,
) -> tuple[npt.NDArray[np.float32], float]:
    """Return every cell's similarity, and the length of the longest embedding."""
    done = store.status == CellStatus.DONE
    values = np.full(store.grid.shape, np.nan, np.float32)
    found, longest = [np.empty(0, np.float32)], 0.0
    for rows in _rows(store, done, cancel):
        unit, length = unit_rows(rows - centre)
        longest = max(longest, length)
        found.append(unit @ wanted)
    values[done] = np.clip(np.concatenate(found), -1, 1)
    return values, longest


def _as_map(
    store: EmbeddingStore,
    values: npt.NDArray[np.float32],
    query: SlidesQuery,
) -> SimilarityMap:
    return SimilarityMap(
        values=values,
        grid=store.grid,
        at=tuple((p.y, p.x) for p in query.at if p.store == store.path),
        not_at=tuple((p.y, p.x) for p in query.not_at if p.store == store.path),
        mode=store.provenance.mode,
        origin_um=store.provenance.origin_um,
    )


def _answer(
    store: Path, made_by: Provenance, found: SimilarityMap, threshold: float
) -> SlideAnswer:
    above = np.nan_to_num(found.values, nan=-np.inf) >= threshold
    is_there = np.isfinite(found.values)
    return SlideAnswer(
        store=store,
        made_by=made_by,
        similarity=found,
        ranked=rank_regions(found, threshold=threshold, limit=RANKED),
        best=float(found.values[is_there].max()) if is_there.any() else None,
        area_mm2=float(found.grid.areas_mm2()[above].sum()),
        squares=int(is_there.sum()),
    )

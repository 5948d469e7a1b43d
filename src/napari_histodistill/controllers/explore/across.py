"""Find similar on all slides of the list: who takes part, the answer, its pictures."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.controllers.shared.similar import (
    LISTED,
    AcrossFacts,
    Prompts,
    SimilarResult,
    Thumbnail,
    places_in_words,
)
from napari_histodistill.controllers.shared.wording import short_name
from napari_histodistill.errors import HistodistillError
from napari_histodistill.layers.kept_maps import kept_map

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from napari_histodistill.controllers.shared.job import Work
    from napari_histodistill.maps.alike.across_slides import (
        FoundPlace,
        SearchProgress,
        SlideMeans,
        SlidesSearched,
    )
    from napari_histodistill.maps.store import Provenance
    from napari_histodistill.running import CancelToken
    from napari_histodistill.slides import Slide

NAME_LETTERS = 24
"""Of a slide's name in a sentence of the panel."""


@dataclass(frozen=True, slots=True, eq=False)
class AllSlidesAnswer:
    """The answer to a question that was asked of all slides.

    Attributes
    ----------
    prompts : Prompts
        The question; an answer to an older question is dropped.
    asked_on : Path
        Store of the slide that was clicked.
    found : SlidesSearched
        What was found on the slides that took part.
    files : mapping of Path to Path
        Store to the file of its slide; without the slide that was clicked, if it has
        none.
    left_out : int
        Slides of the list that did not take part: without a map by this model, or with
        one in another mode or damaged.
    """

    prompts: Prompts
    asked_on: Path
    found: SlidesSearched = field(repr=False)
    files: Mapping[Path, Path]
    left_out: int

    @property
    def listed(self) -> tuple[FoundPlace, ...]:
        """The best places of all slides, as many as have a picture on screen."""
        return self.found.places(LISTED)

    def on(self, store: Path) -> SimilarResult | None:
        """Return the answer on one slide; None if it did not take part.

        Parameters
        ----------
        store : Path
            Of the slide.
        """
        for one in self.found.slides:
            if one.store == store:
                prompts = self.prompts if store == self.asked_on else Prompts()
                threshold = self.found.threshold
                facts = AcrossFacts(self.asked, self.prompts, len(self.found.slides))
                return SimilarResult(
                    prompts, one.similarity, threshold, one.ranked, facts
                )
        return None

    @property
    def asked(self) -> str:
        """Name of the slide that was clicked."""
        slides = self.found.slides
        return next(s.made_by.slide_name for s in slides if s.store == self.asked_on)

    @property
    def limits(self) -> tuple[float, float]:
        """Lowest and highest similarity on all slides."""
        maps = [one.similarity.values for one in self.found.slides]
        known = [values for values in maps if np.isfinite(values).any()]
        return (
            min(float(np.nanmin(values)) for values in known),
            max(float(np.nanmax(values)) for values in known),
        )

    @property
    def count_in_words(self) -> str:
        """How many places there are on all slides together."""
        return places_in_words([p for one in self.found.slides for p in one.ranked])

    @property
    def in_words(self) -> str:
        """On how many slides there are places, and where the question was asked."""
        slides = self.found.slides
        having = sum(bool(one.ranked) for one in slides)
        words = (
            f"On {having} of {len(slides)} slides; asked on "
            f"{short_name(self.asked, NAME_LETTERS)}."
        )
        if self.left_out:
            words += f" {self.left_out} more: no usable map."
        return words


class AcrossSlides:
    """Whether questions are asked of all slides, and the last answer.

    Attributes
    ----------
    wanted : bool
        Whether they are.
    answer : AllSlidesAnswer or None
        To the question that is on screen.
    means : SlideMeans
        Kept from question to question.
    """

    def __init__(self) -> None:
        from napari_histodistill.maps.alike.across_slides import SlideMeans

        self.wanted = False
        self.answer: AllSlidesAnswer | None = None
        self.means = SlideMeans()


def search_work(
    prompts: Prompts,
    *,
    asked_on: Path,
    asked_file: Path | None,
    files: Sequence[Path],
    means: SlideMeans,
) -> Work:
    """Answer a question on all slides that have a map by the same model.

    Parameters
    ----------
    prompts : Prompts
        The question.
    asked_on : Path
        Store of the slide that was clicked.
    asked_file : Path or None
        Its file, if it has one.
    files : sequence of Path
        Files of the slides in the list; that of the clicked one may be among them.
    means : SlideMeans
        Kept from question to question.
    """

    def work(cancel: CancelToken) -> Iterator[SearchProgress | AllSlidesAnswer]:
        from napari_histodistill.maps.alike.across_slides import (
            PlaceOf,
            SearchProgress,
            SlidesQuery,
            search_slides,
        )
        from napari_histodistill.maps.store import EmbeddingStore

        with EmbeddingStore.open(asked_on) as asked:
            made_by = asked.provenance
        others = [file for file in files if file != asked_file]
        taking_part, left_out = _taking_part(others, made_by, cancel)
        query = SlidesQuery(
            at=tuple(PlaceOf(asked_on, y, x) for y, x in prompts.at),
            not_at=tuple(PlaceOf(asked_on, y, x) for y, x in prompts.not_at),
        )
        stores = [asked_on, *taking_part]
        if asked_file is not None:
            taking_part[asked_on] = asked_file
        for report in search_slides(stores, query, means=means, cancel=cancel):
            if isinstance(report, SearchProgress):
                yield report
            else:
                yield AllSlidesAnswer(prompts, asked_on, report, taking_part, left_out)

    return work


def _taking_part(
    files: Sequence[Path], like: Provenance, cancel: CancelToken
) -> tuple[dict[Path, Path], int]:
    """Return the stores of other slides with their files, and how many have none."""
    found: dict[Path, Path] = {}
    seen, without = {like.slide_digest}, 0
    for file in files:
        cancel.check()
        kept = _map_of(file, like)
        if kept is None:
            without += 1
        elif kept[1] not in seen:  # a copy of a slide would be found twice
            seen.add(kept[1])
            found[kept[0]] = file
    return found, without


def _map_of(file: Path, like: Provenance) -> tuple[Path, str] | None:
    """Return the store of a slide's kept map, and the digest of the slide.

    None if it cannot be compared: another model's, in another mode, or damaged.
    """
    from pathlib import Path

    from napari_histodistill.maps.store import EmbeddingStore

    kept = kept_map(file)
    if kept is None or kept.digest != like.student_digest:
        return None
    try:
        with EmbeddingStore.open(kept.store) as store:
            made_by = store.provenance
    except HistodistillError:
        return None  # a damaged map is computed again when its slide is looked at
    if (made_by.student_digest, made_by.mode) != (like.student_digest, like.mode):
        return None
    return Path(kept.store), made_by.slide_digest


def rank_again_work(answer: AllSlidesAnswer, threshold: float) -> Work:
    """Rank the places of all slides again, from another similarity on."""

    def work(cancel: CancelToken) -> Iterator[AllSlidesAnswer]:
        from napari_histodistill.maps.alike.across_slides import ranked_from

        yield replace(answer, found=ranked_from(answer.found, threshold, cancel))

    return work


def pictures_work(
    answer: AllSlidesAnswer, here: Slide, store: Path | None, *, px: int
) -> Work:
    """Read a picture of every listed place, the best first; each slide is opened once.

    Parameters
    ----------
    answer : AllSlidesAnswer
        With the places.
    here : Slide
        The slide that is looked at; it stays open.
    store : Path or None
        Of its map.
    px : int
        Width and height of a picture.
    """

    def work(cancel: CancelToken) -> Iterator[Thumbnail]:
        from contextlib import ExitStack

        from napari_histodistill.maps.alike.ranking import frame_around
        from napari_histodistill.slides import open_slide
        from napari_histodistill.slides.pyramid.resample import read_resampled

        with ExitStack() as opened:
            slides: dict[Path, Slide | None] = {} if store is None else {store: here}
            for one in answer.listed:
                cancel.check()
                its = one.answer.store
                if its not in slides:
                    slides[its] = None
                    try:
                        slide = open_slide(answer.files[its])
                        slides[its] = opened.enter_context(slide)
                    except (HistodistillError, KeyError):
                        continue  # its places stay without pictures
                slide_of_it = slides[its]
                if slide_of_it is None:
                    continue
                frame = frame_around(one.answer.similarity.grid, one.place)
                yield Thumbnail(
                    one.rank, read_resampled(slide_of_it, frame, height=px, width=px)
                )

    return work

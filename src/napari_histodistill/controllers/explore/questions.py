"""Find similar in *Explore slide*: what was clicked, and the answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_histodistill.controllers.explore.across import (
    AcrossSlides,
    AllSlidesAnswer,
    search_work,
)
from napari_histodistill.controllers.explore.memory import RememberingChoice
from napari_histodistill.controllers.explore.showing import Shown
from napari_histodistill.controllers.shared.similar import (
    IndexBuilt,
    Prompt,
    Prompts,
    SimilarResult,
    query_work,
)
from napari_histodistill.errors import InputError
from napari_histodistill.maps.store import CellStatus

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_histodistill.controllers.shared.job import Work
    from napari_histodistill.maps.alike.across_slides import SearchProgress
    from napari_histodistill.maps.alike.similarity import SimilarityIndex
    from napari_histodistill.slides import Slide


class AskingChoice(RememberingChoice):
    """A choice of slide and student that takes clicks and answers.

    Attributes
    ----------
    across : AcrossSlides
        Whether what is clicked is looked for on all slides, and the answer.
    """

    def __init__(self) -> None:
        super().__init__()
        self.across = AcrossSlides()
        self._index: SimilarityIndex | None = None
        self._indexed_cells = 0

    def choose_slide(self, slide: Slide | None) -> None:
        """Explore another slide, or none; what was asked of all slides goes along."""
        answer = self.across.answer
        super().choose_slide(slide)
        self.across.answer = None if slide is None else answer

    def forget_index(self) -> None:
        """Let go of what answers clicks on the map on screen: it is another one."""
        self._index, self._indexed_cells = None, 0

    def forget_questions(self) -> None:
        """Let go of clicks and answers: their map goes."""
        self.forget_index()
        self.clear_prompts()

    @property
    def store_path(self) -> Path | None:
        """Where the present map is stored; None without a map."""
        if self.live is None or self.detail is None:
            return None
        return self._store_path(self.detail)

    @property
    def why_not_similar(self) -> str:
        """Why a click finds nothing; "" if it does."""
        if self.live is None or not self.live.cells_done:
            return "Run the model first: there is nothing to compare yet."
        return ""

    def add_prompt(self, y: float, x: float, *, like: bool) -> None:
        """Take a click, level-0 pixels (edge convention).

        Raises
        ------
        InputError
            If nothing is computed there, or the first click is a "not like this".
        """
        if self.why_not_similar or self.live is None:
            raise InputError(self.why_not_similar)
        row, column = self.live.grid.cell_at(y, x)
        if self.live.status[row, column] != CellStatus.DONE:
            msg = "Nothing is computed there: click on tissue that the map covers."
            raise InputError(msg)
        self.prompts = self.prompts.added(Prompt(y, x, like))
        self.showing.choose(Shown.ALIKE)

    def remove_prompt(self, index: int) -> None:
        """Take a click back; without a "like this" the search ends."""
        self.prompts = self.prompts.removed(index)
        if not self.prompts.items:
            self.clear_prompts()

    def clear_prompts(self) -> None:
        """End the search."""
        self.prompts, self.similar, self.across.answer = Prompts(), None, None

    def search_across(self, *, wanted: bool) -> None:
        """Look for what is clicked on all slides, or on this one only."""
        self.across.wanted = wanted
        if self.across.answer is not None and not wanted:
            self.across.answer = self.similar = None

    def query_work(self, files: Sequence[Path] = ()) -> Work | None:
        """Return work that answers the present prompts; None without any.

        Parameters
        ----------
        files : sequence of Path
            Files of the slides in the list, which are searched if that is wanted.
        """
        path = self.store_path
        if not self.prompts.items or path is None or self.live is None:
            return None
        if self.across.wanted and self.slide is not None:
            return search_work(
                self.prompts,
                asked_on=path,
                asked_file=self.slide.home,
                files=files,
                means=self.across.means,
            )
        done = self.live.cells_done
        fresh = self._indexed_cells == done
        return query_work(
            self.prompts,
            store_path=path,
            index=self._index if fresh else None,
            cells=done,
        )

    def take_answer(
        self, answer: IndexBuilt | SimilarResult | AllSlidesAnswer | SearchProgress
    ) -> bool:
        """Take an answer; return whether there is something new to draw."""
        if isinstance(answer, AllSlidesAnswer):
            return self._take_answer_across(answer)
        if not isinstance(answer, IndexBuilt | SimilarResult):
            return False  # how far a search is
        if isinstance(answer, IndexBuilt):
            self._index, self._indexed_cells = answer.index, answer.cells
            return False
        if answer.prompts != self.prompts:
            return False  # an older question's: the person has clicked on
        self.similar = answer
        return True

    def take_up_answer(self) -> bool:
        """Show what was found on all slides on this one, too; return if that is new.

        A question of its own that waited on this slide gives way to the one that was
        asked of all.
        """
        answer = self.across.answer
        path = None if answer is None else self.store_path
        here = None if answer is None or path is None else answer.on(path)
        if here is None:
            return False
        if self.similar is not None and self.similar.similarity is here.similarity:
            return False
        self.prompts, self.similar = here.prompts, here
        return True

    def _take_answer_across(self, answer: AllSlidesAnswer) -> bool:
        asked_here = self.store_path == answer.asked_on
        if not self.across.wanted or (asked_here and answer.prompts != self.prompts):
            return False  # an older question's
        self.across.answer = answer
        here = None if self.store_path is None else answer.on(self.store_path)
        if here is not None:
            self.similar = here
        return True

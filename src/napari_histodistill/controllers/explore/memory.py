"""A choice of slide and student that remembers what was found on every slide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import ref

from napari_histodistill.controllers.explore.judging import MapTrust
from napari_histodistill.controllers.explore.showing import WhatIsShown
from napari_histodistill.controllers.shared.map_choice import MapChoice
from napari_histodistill.controllers.shared.similar import Prompts, SimilarResult

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from napari_histodistill.controllers.explore.teach.teaching import Taught
    from napari_histodistill.controllers.shared.live_map import LiveMap
    from napari_histodistill.controllers.shared.map_choice import RegionChoice
    from napari_histodistill.slides import Slide
    from napari_histodistill.slides.tissue.tissue import TissueMask
    from napari_histodistill.students.spec import EmbeddingMode
    from napari_histodistill.students.student import Student

MOST = 50
"""Slides remembered at most: a map takes megabytes, and is stored besides."""


@dataclass(frozen=True, slots=True, eq=False)
class _Kept:
    """What was chosen and found on a slide; student and slide are held weakly."""

    slide: ref[Slide]
    student: ref[Student] | None
    mode: EmbeddingMode
    stride_px: int | None
    step_is_chosen: bool
    tissue: TissueMask | None
    every_square: bool
    region: RegionChoice
    shapes: tuple[npt.NDArray[np.float64], ...]
    live: LiveMap | None
    taught: Taught | None
    prompts: Prompts
    similar: SimilarResult | None
    map_trust: MapTrust
    at_least: float


class RememberingChoice(MapChoice):
    """Keeps what belongs to a slide while another one is looked at.

    A slide that was closed is forgotten.

    Attributes
    ----------
    live : LiveMap or None
        The map as far as it is computed.
    prompts, similar : Prompts, SimilarResult or None
        What was clicked and the answer.
    taught : Taught or None
        A probe fitted to strokes, in place of the student's own head.
    map_trust : MapTrust
        Whether the map is like what the student learned from, as far as is known.
    showing : WhatIsShown
        What a person chose to see of the map.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live: LiveMap | None = None
        self.prompts = Prompts()
        self.similar: SimilarResult | None = None
        self.taught: Taught | None = None
        self.map_trust = MapTrust()
        self.showing = WhatIsShown()
        self._kept: dict[int, _Kept] = {}

    def choose_slide(self, slide: Slide | None) -> None:
        """Explore another slide, or none; what is of the old one waits for it."""
        if self.slide is not None:
            self._keep(self.slide)
        self.map_trust = MapTrust()  # the other one is kept with its slide
        self.showing.show_at_least(0.0)
        super().choose_slide(slide)
        kept = None if slide is None else self._kept.get(id(slide))
        if kept is not None and kept.slide() is slide:
            self._go_on(kept)

    def _keep(self, slide: Slide) -> None:
        student, detail = self.student, self.detail
        self._kept.pop(id(slide), None)  # the latest stands last
        self._kept[id(slide)] = _Kept(
            slide=ref(slide),
            student=None if student is None else ref(student),
            mode=self.mode,
            stride_px=None if detail is None else detail.grid.stride_px,
            step_is_chosen=self.step_is_chosen,
            tissue=self.tissue,
            every_square=self.every_square,
            region=self.region,
            shapes=self.shapes,
            live=self.live,
            taught=self.taught,
            prompts=self.prompts,
            similar=self.similar,
            map_trust=self.map_trust,
            at_least=self.showing.at_least,
        )
        gone = [key for key, kept in self._kept.items() if kept.slide() is None]
        for key in gone:
            del self._kept[key]
        for key in list(self._kept)[:-MOST]:
            del self._kept[key]

    def _go_on(self, kept: _Kept) -> None:
        """Take up what was kept of the slide.

        What another student had found, or the same one in another mode, is left out:
        it would be compared with embeddings that it was not made from.
        """
        student = None if kept.student is None else kept.student()
        same = kept.mode == self.mode and student is self.student
        self.tissue, self.every_square = kept.tissue, kept.every_square
        self.region, self.shapes = kept.region, kept.shapes
        self.showing.show_at_least(kept.at_least)
        self._lay_steps(keep=kept.stride_px if same else None)
        self.step_is_chosen = same and kept.step_is_chosen
        if not same or kept.live is None or self.detail is None:
            return
        if self.detail.grid == kept.live.grid:
            self.live, self.taught = kept.live, kept.taught
            self.live.recolour(self.showing.coloured(self.live.classes))
            self.prompts, self.similar = kept.prompts, kept.similar
            self.map_trust = kept.map_trust
            self.map_trust.progress = None  # a comparison ends with another slide

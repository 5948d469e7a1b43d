"""What is shown of the map on screen, and what stands on the canvas to explain it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_histodistill.controllers.explore.showing import OF_CLASSES, Shown
from napari_histodistill.controllers.explore.trust import headline_on
from napari_histodistill.controllers.shared.wording import class_label
from napari_histodistill.layers.overlays import similarity_limits
from napari_histodistill.students.trust import Verdict

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    import numpy as np
    import numpy.typing as npt

    from napari_histodistill.controllers.explore.session import ExploreSession
    from napari_histodistill.controllers.shared.job import Work
    from napari_histodistill.running import CancelToken
    from napari_histodistill.slides import Slide


def why_not_shown(session: ExploreSession, kind: Shown) -> str:
    """Return why a kind cannot be shown now; "" if it can."""
    if kind is Shown.NOTHING:
        return ""
    if kind is Shown.ALIKE:
        if session.similar is not None:
            return ""
        return session.why_not_similar or "Click tissue first: this shows what is like."
    if session.live is None:
        return "Run the model first: there is no map to show yet."
    return "" if session.live.classes else "This model names no classes."


def shown_now(session: ExploreSession) -> Shown:
    """Return what is shown: what was chosen, or what can be instead."""
    for kind in session.showing.wishes:
        if not why_not_shown(session, kind):
            return kind
    return Shown.NOTHING


def one_class(session: ExploreSession) -> int | None:
    """Return the index of the class whose probability is shown; None if none is."""
    if session.live is None or shown_now(session) is not Shown.ONE_CLASS:
        return None
    return session.showing.index_in(session.live.classes)


@dataclass(frozen=True, slots=True)
class HiddenSquares:
    """How many squares of a map are not shown, of how many."""

    count: int
    of: int

    def __str__(self) -> str:
        """Return it for people; "" where there is no map."""
        if not self.of:
            return ""
        return f"{self.count:,} of {self.of:,} squares hidden"


def hidden_squares(session: ExploreSession, closed: Collection[int]) -> HiddenSquares:
    """Return how many squares filter, eyes and likeness hide.

    Parameters
    ----------
    session : ExploreSession
        With its map.
    closed : collection of int
        Indices of the classes that are not shown.
    """
    live = session.live
    if live is None:
        return HiddenSquares(0, 0)
    if one_class(session) is not None:
        return HiddenSquares(*live.hidden_heat())
    return HiddenSquares(*live.hidden_cells(closed))


def why_no_filter(session: ExploreSession) -> str:
    """Return why the filter changes nothing on screen; "" if it does."""
    shown = shown_now(session)
    if shown in OF_CLASSES:
        return ""
    if shown is Shown.ALIKE:
        return "Holds for classes. What is alike has a threshold of its own, below."
    return "Holds for classes: show Classes or One class first."


# --- on the canvas ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Scale:
    """A bar of colours with its two ends named."""

    title: str
    low: str
    high: str


@dataclass(frozen=True, slots=True)
class CanvasLegend:
    """What the colours on the canvas mean.

    Attributes
    ----------
    classes : tuple of (str, str)
        Name and colour of every class that is shown.
    scale : Scale or None
        In place of classes, where a heatmap is shown.
    hatched : bool
        Whether squares are hatched as unlike the training.
    warning : str
        The verdict of a map that is unlike the training: a user who sees its colours
        must not have to look for it.
    """

    classes: tuple[tuple[str, str], ...] = ()
    scale: Scale | None = None
    hatched: bool = False
    warning: str = ""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to explain."""
        return not (self.classes or self.scale or self.hatched)


def canvas_legend(session: ExploreSession, closed: Collection[int]) -> CanvasLegend:
    """Return what the colours on the canvas mean now; see :func:`hidden_squares`."""
    live, shown = session.live, shown_now(session)
    if live is None or shown is Shown.NOTHING:
        return CanvasLegend()
    if shown is Shown.ALIKE and session.similar is not None:
        found = session.similar
        low, high = similarity_limits(found.similarity.values, found.threshold)
        scale = Scale("Similarity", f"{low:.2f} (threshold)", f"{high:.2f}")
        return CanvasLegend(scale=scale, warning=_warning(session))
    hatched = bool(session.hatching)
    if shown is Shown.ONE_CLASS:
        name = class_label(live.classes[session.showing.index_in(live.classes)].name)
        scale = Scale(f"Probability of {name}", "0 %", "100 %")
        return CanvasLegend(scale=scale, hatched=hatched, warning=_warning(session))
    rows = tuple(
        (class_label(spec.name), spec.color)
        for k, spec in enumerate(live.classes)
        if k not in closed
    )
    return CanvasLegend(classes=rows, hatched=hatched, warning=_warning(session))


def _warning(session: ExploreSession) -> str:
    if session.trust is None or session.trust.verdict is not Verdict.UNLIKE:
        return ""
    headline = headline_on(session)
    return f"{headline.sign} {headline.text}"


@dataclass(frozen=True, slots=True)
class SlideOverview:
    """All of a slide as a small picture, ``(h, w, 3)`` uint8."""

    pixels: npt.NDArray[np.uint8]


def overview_work(slide: Slide) -> Work:
    """Return work that reads all of a slide as a small picture, if it has colours."""

    def work(cancel: CancelToken) -> Iterator[SlideOverview]:
        from napari_histodistill.export.figure import overview

        cancel.check()
        if slide.info.is_rgb:
            yield SlideOverview(overview(slide))

    return work

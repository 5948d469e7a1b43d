"""The session of a panel about one slide, as the shared parts of panels see it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from napari_histodistill.controllers.shared.map_choice import RegionChoice
    from napari_histodistill.geometry import Region
    from napari_histodistill.slides import Slide
    from napari_histodistill.slides.tissue.tissue import TissueMask


def why_stay(name: str, *, running: bool, has_drawn: bool) -> str:
    """Return why a slide stays chosen while another is opened; "" if it does not.

    Parameters
    ----------
    name : str
        Of the layer that is looked at.
    running : bool
        Whether a run on it is going on.
    has_drawn : bool
        Whether a person has drawn on it.
    """
    if running:
        return f"the run on {name} goes on."
    return f"{name} stays chosen: you have painted on it." if has_drawn else ""


class SlideSession(Protocol):
    """The state behind a panel about one slide, as the shared parts of panels see it.

    :class:`~napari_histodistill.controllers.explore.session.ExploreSession` and
    :class:`~napari_histodistill.controllers.compare.session.CompareSession` are such.

    Attributes
    ----------
    running : bool
        Whether a run is going on.
    """

    running: bool

    @property
    def slide(self) -> Slide | None:
        """The slide, if one is chosen."""

    @property
    def region(self) -> RegionChoice:
        """What a run covers."""

    @property
    def needs_mpp(self) -> bool:
        """Whether the slide's µm per pixel must be asked for."""

    @property
    def takes_mpp(self) -> bool:
        """Whether a person may give the µm per pixel."""

    @property
    def needs_rgb(self) -> bool:
        """Whether a person must say if three channels are red, green and blue."""

    def call_rgb(self) -> None:
        """Say that they are; an ``InputError`` refuses other channels."""

    def choose_slide(self, slide: Slide | None) -> None:
        """Look at another slide, or none."""

    def type_mpp(self, value: float, source: str = ...) -> None:
        """Give the µm per pixel; an ``InputError`` refuses what cannot be."""

    def look_at(self, view: Region | None) -> None:
        """Note what the canvas shows, level-0 pixels."""

    def take_tissue(self, tissue: TissueMask | None) -> None:
        """Take the tissue that was found."""

    def run_ended(self) -> None:
        """Note that no run is going any more."""

    def describe(self, y: float, x: float) -> str:
        """Return what is under a level-0 position."""

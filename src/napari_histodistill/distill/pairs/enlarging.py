"""Tiles that enlarge a slide: they show no more than its own pixels do."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_histodistill.distill.pairs.plan import Sampling
    from napari_histodistill.slides.pyramid.slide import Slide

MOST = 2.0
"""Enlargement up to which nothing is said: a 20× slide for a model that sees 40×."""


def enlarged(slide: Slide, sampling: Sampling) -> float:
    """Return how many times tiles enlarge a slide; 1 where they do not.

    Parameters
    ----------
    slide : Slide
        The H&E.
    sampling : Sampling
        With the tiles' µm per pixel.
    """
    mpp = slide.usable_mpp
    return 1.0 if mpp is None else max(1.0, mpp.mean / sampling.mpp)


def why_enlarged(slide: Slide, sampling: Sampling) -> str:
    """Return a warning if tiles enlarge a slide so much that they show nothing new."""
    times, mpp = enlarged(slide, sampling), slide.usable_mpp
    if mpp is None or times <= MOST:
        return ""
    return (
        f"Tiles of {sampling.mpp:.3g} µm/px enlarge {slide.name} {times:.1f} times: "
        f"nothing new is seen. Choose tiles of {mpp.mean:.3g} µm/px or more, or "
        "correct µm/px of the slide (step 1)."
    )

"""µm per pixel of the H&E and its partner, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_histodistill.slides import Slide


def known_um(slide: Slide | None) -> float:
    """Return the µm per pixel that are worked with; 0 where there are none."""
    mpp = None if slide is None else slide.usable_mpp
    return 0.0 if mpp is None else mpp.mean


def say_scales(sparse: Slide | None, partner: Slide | None) -> str:
    """Return where µm per pixel of both come from, or that they are missing."""
    said = (("H&E", sparse), ("partner", partner))
    words = (f"{name}: {_say(slide)}" for name, slide in said if slide is not None)
    both = "; ".join(words)
    return f"µm/px of the {both}." if both else ""


def _say(slide: Slide) -> str:
    mpp = slide.mpp
    if mpp is None:
        return "not known, type it"
    if slide.usable_mpp is None:
        return f"{mpp.problem}, type it"
    return mpp.source

"""Tiles of a wrong magnification: larger than a slide's pixels, unlike to a start."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from napari_histodistill.students.bundle import load_spec
from napari_histodistill.students.bundled import find_bundled

if TYPE_CHECKING:
    from pathlib import Path

    from napari_histodistill.distill.pairs.plan import Sampling
    from napari_histodistill.distill.recipes.config import DistillConfig
    from napari_histodistill.slides.pyramid.slide import Slide

MOST = 2.0
"""Enlargement up to which nothing is said: a 20× slide for a model that sees 40×."""

MOST_FROM_START = 4.0
"""Factor between the magnification of a start and of what goes on from it, up to which
nothing is said: a 10× network that goes on at 40×."""


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
        "correct µm/px of the slide."
    )


def why_unlike_start(config: DistillConfig, home: Path) -> str:
    """Return a warning if tissue looks far larger, or smaller, than a start expects.

    Parameters
    ----------
    config : DistillConfig
        Names the student that the encoder starts from, and the tiles that it sees.
    home : Path
        Folder that names of starts are relative to.

    Raises
    ------
    BundleError
        If the start cannot be read.
    """
    start = config.sparse.encoder.start
    if not start:
        return ""
    expected = _um_per_px(find_bundled(start) or home / start)
    seen = config.mpp * config.source_px / config.sparse.input_px
    times = expected / seen
    if 1 / MOST_FROM_START <= times <= MOST_FROM_START:
        return ""
    how = f"{times:.1f} times as large" if times > 1 else f"1/{1 / times:.1f} as large"
    return (
        f"The model sees {seen:.3g} µm/px and starts from {start}, which expects "
        f"{expected:.3g} µm/px: tissue looks {how} as it should to it. Choose tiles "
        f"whose pixels are nearer to {expected:.3g} µm, or correct µm/px of the slide."
    )


@lru_cache(maxsize=32)
def _um_per_px(bundle: Path) -> float:
    """Return the µm per pixel that a student's encoder sees."""
    spec = load_spec(bundle)
    return spec.tile_um / (spec.input_px or spec.tile_px)

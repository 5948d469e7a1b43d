"""What a slide's layer says of it in words: for scripts, and for who looks at metadata.

``layer.metadata["slide"]`` of every slide layer; µm per pixel that a person gives in a
panel are in it, too. What the panels work with is the ``SlideRef`` beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_histodistill.addresses import shown
from napari_histodistill.layers.plain_names import plain_name

if TYPE_CHECKING:
    from napari_histodistill.slides import Slide

FACTS_KEY = "slide"
"""Key of the facts in a layer's metadata."""


def slide_facts(slide: Slide) -> dict[str, str]:
    """Return what is known of a slide, each fact as a short text.

    Of an address only what may be shown; no associated image is looked at.

    Parameters
    ----------
    slide : Slide
        Open.

    Examples
    --------
    >>> from napari_histodistill.layers.slide_facts import slide_facts
    >>> from napari_histodistill.samples import ihc_sample
    >>> from napari_histodistill.slides import open_slide
    >>> with open_slide(ihc_sample()) as slide:
    ...     facts = slide_facts(slide)
    >>> facts["size"], facts["levels"]
    ('512 × 512 px (height × width)', '1: 1×')
    """
    info, (height, width) = slide.info, slide.shape
    where = info.address or ("" if info.path is None else str(info.path))
    found = {
        "name": info.name,
        "from": shown(where) if where else "",
        "format": info.vendor or info.backend,
        "size": f"{height:,} × {width:,} px (height × width)",
        "µm per pixel": _pixel(slide),
        "objective": _objective(slide),
        "scanner": info.optics.scanner,
        "levels": _levels(slide),
        "channels": f"{', '.join(info.channels)} ({slide.dtype})",
        "notes": " ".join(info.notes),
    }
    return {name: plain_name(fact) for name, fact in found.items() if fact}


def _pixel(slide: Slide) -> str:
    mpp = slide.mpp
    if mpp is None:
        return "not known"
    words = f"{mpp.y:.4g} × {mpp.x:.4g} (y × x), from {mpp.source}"
    return words if mpp.is_usable else f"{words}; not plausible"


def _objective(slide: Slide) -> str:
    times = slide.info.optics.magnification
    return "" if times is None else f"{times:g}×"


def _levels(slide: Slide) -> str:
    factors = ", ".join(f"{factor:.4g}×" for factor in slide.downsamples)
    return f"{len(slide.downsamples)}: {factors}"

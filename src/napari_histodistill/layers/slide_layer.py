"""A slide as a napari layer: a lazy pyramid in µm that remembers where it came from.

``metadata["histodistill"]`` of every slide layer is a :class:`SlideRef`; a widget that
is given any layer can ask :func:`slide_of` for the open slide behind it. What is known
of it stands in words beside that (``slide_facts.py``).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.layers.plain_names import plain_name
from napari_histodistill.layers.slide_facts import FACTS_KEY, slide_facts
from napari_histodistill.slides.formats.zarr_colours import taken_for_colour

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from napari_histodistill.geometry import Mpp
    from napari_histodistill.slides import Slide

LayerTuple = tuple[Any, dict[str, Any], str]
"""Data, keywords, layer type: what npe2 readers and samples return."""

METADATA_KEY = "histodistill"

OVERLAY_MARK = "histodistill overlay"
"""Key in an overlay's metadata: it is neither a slide nor a partner."""

OVERLAY_OF = "histodistill overlay of"
"""Key in an overlay's metadata: the section it lies on, whatever its colours."""

STUDENTS_KEY = "histodistill students"
"""Key in a slide layer's metadata: names of the bundled students that it is there to
show, the one to explore with first, then its control."""

CHANNEL_COLORS = ("#0072b2", "#009e73", "#d55e00", "#cc79a7", "#f0e442", "#56b4e9")
"""Okabe-Ito, blue first since DAPI usually is: for channels of fluorescence slides."""


@dataclass(frozen=True, slots=True)
class SlideRef:
    """A layer's record of its slide.

    Attributes
    ----------
    slide : Slide
        The open slide. It closes when the last layer and the last map let go of it.
    name : str
        Name shown to the user.
    path : Path or None
        File or folder it was opened from; None for arrays.
    mpp : Mpp or None
        µm per level-0 pixel with provenance, as of opening.
    stored : Slide or None
        The same slide in colours as stored, where ``slide`` shows them in sRGB.
    """

    slide: Slide = field(compare=False, repr=False)
    name: str
    path: Path | None = None
    mpp: Mpp | None = None
    stored: Slide | None = field(default=None, compare=False, repr=False)

    @property
    def has_profile(self) -> bool:
        """Whether the file carries an ICC profile that colours can be shown by."""
        info = (self.stored or self.slide).info
        is_colour = info.is_rgb and self.slide.dtype == np.uint8
        return is_colour and info.icc_profile is not None

    def in_colours(self, *, srgb: bool) -> SlideRef:
        """Return this in sRGB by the file's ICC profile, or in colours as stored.

        Raises
        ------
        SlideError
            If the profile is damaged or not one of RGB.
        """
        from napari_histodistill.slides.tissue.icc import in_srgb

        if srgb == (self.stored is not None):
            return self
        if srgb:
            return replace(self, slide=in_srgb(self.slide), stored=self.slide)
        assert self.stored is not None
        # The µm per pixel may have been typed since.
        info = replace(self.stored.info, mpp=self.slide.mpp)
        return replace(self, slide=self.stored.with_info(info), stored=None)


def metadata_of(ref: SlideRef) -> dict[str, Any]:
    """Return what stands in a slide layer's metadata: its record, and it in words."""
    return {METADATA_KEY: ref, FACTS_KEY: slide_facts(ref.slide)}


def ref_of(metadata: Mapping[str, Any]) -> SlideRef | None:
    """Return the record of a slide in a layer's metadata, or None for other layers."""
    ref = metadata.get(METADATA_KEY)
    return ref if isinstance(ref, SlideRef) else None


def slide_of(metadata: Mapping[str, Any]) -> Slide | None:
    """Return the open slide behind a layer's metadata, or None for other layers."""
    ref = ref_of(metadata)
    return None if ref is None else ref.slide


def students_of(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the students that a slide layer is there to show, if any."""
    names = metadata.get(STUDENTS_KEY)
    if not isinstance(names, tuple):  # anyone may write into metadata
        return ()
    return tuple(name for name in names if isinstance(name, str))


def slide_layer(
    slide: Slide, *, translate: tuple[float, float] | None = None
) -> LayerTuple:
    """Return one napari layer tuple for a slide.

    The layer's unit is always µm, since napari refuses to draw layers of different
    units together: a slide whose µm per pixel is not known is *placed* at 1 µm per
    pixel until a person gives it. What is known is in its :class:`SlideRef`.

    Parameters
    ----------
    slide : Slide
        Open; the layer reads from it lazily, so it must stay open.
    translate : tuple of float, optional
        World position ``(y, x)`` of the centre of the first pixel, µm, which lets two
        slides lie side by side; by default where the file places it.

    Returns
    -------
    tuple
        ``(levels, kwargs, "image")``: a list of dask arrays, finest first:
        ``(height, width, 3)`` for colour slides, ``(height, width, channels)`` with
        ``channel_axis`` for others (napari makes one layer of each channel).
    """
    world = slide.world()
    kwargs: dict[str, Any] = {
        "name": plain_name(slide.name),
        "scale": world.scale,
        "translate": _origin(slide) if translate is None else translate,
        "units": ("um", "um"),
        "multiscale": True,
        "cache": False,
        "metadata": metadata_of(SlideRef(slide, slide.name, slide.path, slide.mpp)),
    }
    if slide.info.is_rgb or slide.info.needs_rgb:
        # Shown as what it may be, so that a person can see it and say.
        shown = taken_for_colour(slide)
        kwargs |= {"rgb": True, "contrast_limits": (0, 255)}
        return list(shown.levels), kwargs, "image"
    levels = list(slide.levels)
    limits = _channel_limits(slide)
    if len(limits) == 1:
        kwargs |= {"rgb": False, "contrast_limits": limits[0]}
        return [level[:, :, 0] for level in levels], kwargs, "image"
    kwargs |= {
        "rgb": False,
        "channel_axis": 2,
        "name": [
            plain_name(f"{slide.name} · {channel}") for channel in slide.info.channels
        ],
        "contrast_limits": limits,
        "colormap": [
            CHANNEL_COLORS[k % len(CHANNEL_COLORS)] for k in range(len(limits))
        ],
        "blending": "additive",
    }
    return levels, kwargs, "image"


def _origin(slide: Slide) -> tuple[float, float]:
    return (0.0, 0.0) if slide.usable_mpp is None else slide.info.origin_um


def _channel_limits(slide: Slide) -> list[tuple[float, float]]:
    """Return contrast limits per channel from the coarsest level (it is small)."""
    coarse = np.asarray(slide.levels[-1]).reshape(-1, slide.levels[-1].shape[2])
    limits = []
    for channel in coarse.T:
        values = channel[np.isfinite(channel)].astype(np.float64)
        low, high = np.percentile(values, (0.5, 99.8)) if values.size else (0, 1)
        limits.append((float(low), float(high if high > low else low + 1)))
    return limits

"""Annotations of a slide as a napari layer of labels with named classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.layers.plain_names import plain_name

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_histodistill.export.annotations import AnnotationLabels
    from napari_histodistill.layers.slide_layer import LayerTuple
    from napari_histodistill.slides.pyramid.slide import Slide


def annotation_layer(
    labels: AnnotationLabels,
    slide: Slide,
    *,
    name: str,
    affine: npt.NDArray[np.float64] | None = None,
) -> LayerTuple:
    """Return one napari layer tuple for annotations.

    Parameters
    ----------
    labels : AnnotationLabels
        Painted over the whole slide.
    slide : Slide
        With µm per pixel.
    name : str
        Of the layer.
    affine : ndarray, optional
        ``(3, 3)``: from the slide's own µm to the canvas.
    """
    mpp = slide.require_mpp()
    per_px = np.array(slide.shape) / labels.numbers.shape
    um = np.array([mpp.y, mpp.x])
    kwargs: dict[str, Any] = {
        "name": plain_name(name),
        "scale": tuple((per_px * um).tolist()),
        # Pixel centres: the first of the labels covers several of the slide's.
        "translate": tuple(((per_px - 1) / 2 * um).tolist()),
        "units": ("um", "um"),
        "affine": np.eye(3) if affine is None else affine,
        "opacity": 0.5,
        "features": {
            "index": [0, *labels.named],
            "class": ["", *labels.named.values()],
        },
    }
    return labels.numbers, kwargs, "labels"

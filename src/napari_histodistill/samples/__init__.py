"""Slides to start with, made on this machine: nothing is downloaded.

``ihc_sample`` is real tissue, ``synthetic_slide`` is painted. Both are pyramidal
OME-TIFF files in the user's cache, written once. ``open_ihc_sample`` and
``open_synthetic_sample`` are what napari's *File › Open Sample* calls.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.cache import cache_dir
from napari_histodistill.samples.synthetic import MPP, SyntheticTruth, paint_slide

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "ihc_sample",
    "open_ihc_sample",
    "open_synthetic_sample",
    "synthetic_slide",
    "synthetic_truth",
]

# A change of the picture must change the number: files are made only once.
IHC_VERSION = 1
SYNTHETIC_VERSION = 1

IHC_MPP = 0.5
IHC_NAME = "Colon, immunohistochemistry (scikit-image)"
IHC_NOTE = (
    "Colonic glands, FHL2 by DAB, haematoxylin counterstain; scikit-image's "
    "immunohistochemistry image, acquired at the Center for Microscopy And Molecular "
    "Imaging (CMMI), no known copyright restrictions. The 0.5 µm per pixel is an "
    "estimate from the size of the crypts: the image carries no scale."
)
SYNTHETIC_NAME = "Synthetic colon (not real tissue)"
SYNTHETIC_NOTE = (
    "Painted by a program to look like H&E-stained colon. It is not tissue: use it to "
    "try the tools, never to judge a student."
)


def ihc_sample() -> Path:
    """Return a small pyramidal OME-TIFF of real colon tissue, 512 × 512 px.

    scikit-image's ``immunohistochemistry``; its 0.5 µm per pixel is estimated from the
    size of the crypts, and the file says so.
    """
    path = cache_dir("samples") / f"colon-ihc-v{IHC_VERSION}.ome.tif"
    if not path.exists():
        from skimage.data import immunohistochemistry

        from napari_histodistill.slides.write import write_pyramid

        write_pyramid(
            path,
            np.ascontiguousarray(immunohistochemistry()),
            mpp=IHC_MPP,
            name=IHC_NAME,
            tile_px=128,  # so that even this small image is a pyramid
            compression="zlib",
            note=IHC_NOTE,
        )
    return path


def synthetic_slide() -> Path:
    """Return a painted, H&E-like slide as pyramidal OME-TIFF, 6000 × 8000 px.

    3 × 4 mm at 0.5 µm per pixel: crypts, a region of crowded irregular glands, muscle,
    submucosa with vessels, two lymphoid aggregates, glass around. Seeded, so that every
    machine has the same one. The first call takes some 15 s.
    """
    _synthetic_truth_file()
    return _synthetic_paths()[0]


def synthetic_truth() -> SyntheticTruth:
    """Return which tissue was painted where on :func:`synthetic_slide`."""
    with np.load(_synthetic_truth_file(), allow_pickle=False) as stored:
        return SyntheticTruth(
            stored["labels"],
            tuple(str(name) for name in stored["classes"]),
            float(stored["um_per_px"]),
        )


def open_ihc_sample() -> list[Any]:
    """Return the layers of *File › Open Sample › Colon, immunohistochemistry*."""
    return _layers(ihc_sample())


def open_synthetic_sample() -> list[Any]:
    """Return the layers of *File › Open Sample › Synthetic colon*."""
    return _layers(synthetic_slide())


def _layers(path: Path) -> list[Any]:
    from napari_histodistill.layers.slide_layer import slide_layer
    from napari_histodistill.slides import open_slide

    return [slide_layer(open_slide(path))]


def _synthetic_paths() -> tuple[Path, Path]:
    folder = cache_dir("samples")
    stem = f"synthetic-colon-not-real-tissue-v{SYNTHETIC_VERSION}"
    return folder / f"{stem}.ome.tif", folder / f"{stem}-truth.npz"


def _synthetic_truth_file() -> Path:
    """Write slide and truth together, the truth last: where it is, both are."""
    slide, truth = _synthetic_paths()
    if slide.exists() and truth.exists():
        return truth
    from napari_histodistill.slides.write import write_pyramid

    image, known = paint_slide()
    write_pyramid(slide, image, mpp=MPP, name=SYNTHETIC_NAME, note=SYNTHETIC_NOTE)
    beside = truth.with_name(f"{uuid.uuid4().hex[:8]}-{truth.name}")
    try:
        np.savez_compressed(
            beside,
            labels=known.labels,
            classes=np.array(known.classes),
            um_per_px=known.um_per_px,
        )
        beside.replace(truth)
    finally:
        beside.unlink(missing_ok=True)
    return truth

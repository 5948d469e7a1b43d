"""Slides to start with, made on this machine; others are fetched on request.

``ihc_sample`` is real tissue, ``synthetic_slide`` is painted. Both are pyramidal
OME-TIFF files in the user's cache, written once. ``ihc_pair``, ``painted_pair``,
``spot_sample`` and ``bulb_sample`` are small and made at every call. The functions
``open_…`` are what napari's *File › Open Sample* calls. Only :mod:`.fetching`
downloads, and only what is asked for.
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.cache import cached
from napari_histodistill.samples.synthetic import MPP, SyntheticTruth, paint_slide

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from napari_histodistill.distill.layers.partners import Spots
    from napari_histodistill.samples.bulb import PaintedBulb
    from napari_histodistill.samples.spots import PaintedSpots
    from napari_histodistill.slides import Slide

__all__ = [
    "bulb_sample",
    "ihc_pair",
    "ihc_sample",
    "open_bulb_sample",
    "open_ihc_pair",
    "open_ihc_sample",
    "open_painted_pair",
    "open_spot_sample",
    "open_synthetic_sample",
    "painted_pair",
    "spot_sample",
    "synthetic_slide",
    "synthetic_truth",
]

# Files are made only once: a change of a picture needs a new number.
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
IHC_PAIR_NAMES = ("Colon, haematoxylin alone", "Colon, DAB alone")
PAIR_NAMES = ("Painted H&E (not real tissue)", "Painted fluorescence")
SPOT_NAMES = ("Painted H&E with spots (not real tissue)", "Painted spots")
TRUTH_NAME = "Zones of the gene programme (the truth)"
BULB_NAME = "Painted olfactory bulb (not real tissue)"
BULB_NOTE = (
    "Painted by a program: layers of the olfactory bulb as textbooks draw them. It is "
    "not tissue, and what bulb-genes and bulb-control find alike on it says nothing "
    "about real tissue, nor about what genes taught. Trust calls it neither like nor "
    "unlike, though it is no tissue at all."
)
BULB_STUDENTS = ("bulb-genes", "bulb-control")
BULB_TRUTH_NAME = "Layers of the bulb (as painted)"
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
    path = cached("samples", f"colon-ihc-v{IHC_VERSION}.ome.tif")
    if not path.exists():
        from skimage.data import immunohistochemistry

        from napari_histodistill.slides.tissue.writing import write_pyramid

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


def painted_pair() -> tuple[Slide, Slide]:
    """Return the H&E-like and the fluorescence slide of a painted pair, 2048 px.

    Its truth: :func:`~napari_histodistill.samples.paired.paint_pair`.
    """
    from napari_histodistill.samples.paired import CHANNELS, paint_pair

    pair = paint_pair()
    return _slide(pair.sparse, PAIR_NAMES[0]), _slide(
        pair.dense, PAIR_NAMES[1], channels=CHANNELS
    )


def ihc_pair() -> tuple[Slide, Slide]:
    """Return one real section as two slides: its haematoxylin, and its DAB.

    Colour deconvolution (Ruifrok and Johnston 2001) of scikit-image's
    ``immunohistochemistry``, 512 × 512 px: the sparse slide is the section as
    haematoxylin alone would have stained it, the dense one its DAB. They are in
    register by construction.
    """
    from skimage.color import hed2rgb, rgb2hed
    from skimage.data import immunohistochemistry

    stains = rgb2hed(immunohistochemistry())
    alone = np.zeros_like(stains)
    alone[..., 0] = stains[..., 0]
    sparse = np.rint(hed2rgb(alone) * 255).astype(np.uint8)
    strength = np.clip(stains[..., 2] / np.percentile(stains[..., 2], 99.9), 0, 1)
    dab = np.rint(strength * 65535).astype(np.uint16)
    return (
        _slide(sparse, IHC_PAIR_NAMES[0], mpp=IHC_MPP),
        _slide(dab, IHC_PAIR_NAMES[1], mpp=IHC_MPP, channels=("DAB",)),
    )


def spot_sample() -> tuple[Slide, Spots, PaintedSpots]:
    """Return a painted section, its spots as a partner, and the truth.

    Values are log1p of counts per 10,000; their truth:
    :func:`~napari_histodistill.samples.spots.paint_spots`.
    """
    from napari_histodistill.distill.layers.partners import Spots
    from napari_histodistill.distill.spots.spot_tables import log_normalised
    from napari_histodistill.samples.spots import paint_spots

    known = paint_spots()
    values = log_normalised(known.counts)
    spots = Spots(SPOT_NAMES[1], known.positions_um, values, known.genes)
    return _slide(known.sparse, SPOT_NAMES[0]), spots, known


def open_spot_sample() -> list[Any]:
    """Return the layers of *File › Open Sample › H&E and spots*.

    H&E and spots, and the true zones: hidden, and not offered as a partner.
    """
    from napari_histodistill.layers.slide_layer import OVERLAY_MARK
    from napari_histodistill.layers.spot_layer import spot_layer
    from napari_histodistill.samples.spots import SPOT_UM

    slide, spots, known = spot_sample()
    # Genes that rise in a zone come first, the most counted ones before the others.
    rises = np.array([gene.startswith("UP") for gene in spots.genes])
    order = np.lexsort((-spots.values.mean(axis=0), ~rises))
    spots = replace(
        spots,
        values=np.ascontiguousarray(spots.values[:, order]),
        genes=tuple(spots.genes[k] for k in order),
    )
    zones = known.positive[::4, ::4].astype(np.uint8)
    offset = 1.5 * MPP  # the centre of the first 4 × 4 pixels
    truth = {
        "name": TRUTH_NAME,
        "scale": (4 * MPP, 4 * MPP),
        "translate": (offset, offset),
        "units": ("um", "um"),
        "visible": False,
        "opacity": 0.4,
        "metadata": {OVERLAY_MARK: "truth"},
    }
    return [
        *_layers_of(slide),
        (zones, truth, "labels"),
        spot_layer(spots, size_um=SPOT_UM, metadata={"zone share": known.zone_share}),
    ]


def bulb_sample() -> tuple[Slide, PaintedBulb]:
    """Return a painted olfactory bulb as a slide at 4 µm per pixel, and the truth.

    Its truth: :func:`~napari_histodistill.samples.bulb.paint_bulb`.
    """
    from napari_histodistill.samples import bulb

    known = bulb.paint_bulb()
    slide = _slide(known.picture, BULB_NAME, mpp=bulb.MPP)
    return slide.with_info(replace(slide.info, notes=(BULB_NOTE,))), known


def open_bulb_sample() -> list[Any]:
    """Return the layers of the painted olfactory bulb: the slide, and what is where.

    *Explore slide* looks at it with ``bulb-genes``, *Compare students* with its control
    beside it. The painted layers are hidden, and not offered as a partner.
    """
    from napari_histodistill.layers.slide_layer import OVERLAY_MARK, STUDENTS_KEY
    from napari_histodistill.samples import bulb

    slide, known = bulb_sample()
    (layer,) = _layers_of(slide)
    layer[1]["metadata"][STUDENTS_KEY] = BULB_STUDENTS
    truth = {
        "name": BULB_TRUTH_NAME,
        "scale": (bulb.MPP, bulb.MPP),
        "units": ("um", "um"),
        "visible": False,
        "opacity": 0.4,
        "features": {
            "index": list(range(len(bulb.CLASS_NAMES))),
            "layer": list(bulb.CLASS_NAMES),
        },
        "metadata": {OVERLAY_MARK: "truth"},
    }
    return [(known.labels, truth, "labels"), layer]


def open_painted_pair() -> list[Any]:
    """Return the layers of *File › Open Sample › H&E and a marker*."""
    return _layers_of(*painted_pair())


def open_ihc_pair() -> list[Any]:
    """Return the layers of *File › Open Sample › Haematoxylin and DAB*."""
    return _layers_of(*ihc_pair())


def _slide(
    pixels: npt.NDArray[Any],
    name: str,
    *,
    mpp: float = MPP,
    channels: tuple[str, ...] | None = None,
) -> Slide:
    from napari_histodistill.geometry import Mpp
    from napari_histodistill.slides import slide_from_arrays

    known = Mpp(mpp, mpp, "the sample")
    return slide_from_arrays(pixels, name=name, mpp=known, channels=channels)


def _layers_of(*slides: Slide) -> list[Any]:
    from napari_histodistill.layers.slide_layer import slide_layer

    return [slide_layer(slide) for slide in slides]


def _layers(path: Path) -> list[Any]:
    from napari_histodistill.slides import open_slide

    return _layers_of(open_slide(path))


def _synthetic_paths() -> tuple[Path, Path]:
    stem = f"synthetic-colon-not-real-tissue-v{SYNTHETIC_VERSION}"
    # The truth is written last: where it is, the slide is beside it.
    truth = cached("samples", f"{stem}-truth.npz")
    return truth.with_name(f"{stem}.ome.tif"), truth


def _synthetic_truth_file() -> Path:
    """Write slide and truth together, the truth last: if it exists, both do."""
    slide, truth = _synthetic_paths()
    if slide.exists() and truth.exists():
        return truth
    from napari_histodistill.slides.tissue.writing import write_pyramid

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

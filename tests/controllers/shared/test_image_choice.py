"""The row that offers the images of a file: when it is there, and what it says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from napari_histodistill.addresses import url_of
from napari_histodistill.controllers.shared.image_choice import images_offered
from napari_histodistill.geometry import Mpp
from napari_histodistill.slides import ImageChoice, slide_from_arrays

SCAN = ImageChoice(
    name="scan", index=0, height=2000, width=3000, mpp=Mpp(0.5, 0.5, "a test")
)
LABEL = ImageChoice(name="barcode", index=1, height=90, width=70, role="label")
MACRO = ImageChoice(name="macro image", index=2, height=0, width=0, role="macro")


def slide(*images, path=Path("slide.tif"), image=0):
    made = slide_from_arrays(np.zeros((8, 8, 3), np.uint8), name="slide")
    return made.with_info(replace(made.info, path=path, images=images, image=image))


def test_nothing_is_offered_where_there_is_nothing_to_choose():
    assert images_offered(None) is None
    assert images_offered(slide(SCAN)) is None
    assert images_offered(slide(SCAN, LABEL, path=None)) is None


def test_images_of_a_slide_on_a_server_are_offered():
    made = slide(SCAN, LABEL, path=None)
    there = made.with_info(replace(made.info, address="https://a.org/slide.zarr"))
    offer = images_offered(there)
    assert offer is not None
    assert len(offer.titles) == 2
    assert url_of(there.home) == "https://a.org/slide.zarr"


def test_each_image_is_described_and_private_ones_are_marked():
    offer = images_offered(slide(SCAN, LABEL, MACRO, image=2))
    assert offer.current == 2
    assert offer.titles == (
        "scan · 2,000 × 3,000 px · 0.5 µm/px",
        "barcode · label · 90 × 70 px · may show a name",
        "macro image · may show a name",
    )


def test_a_long_list_is_cut_behind_the_one_that_is_open():
    many = [replace(SCAN, index=k) for k in range(1000)]
    assert len(images_offered(slide(*many)).titles) == 200
    offer = images_offered(slide(*many, image=700))
    assert (len(offer.titles), offer.current) == (701, 700)

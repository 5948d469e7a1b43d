"""What a slide's layer says of it in words."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from napari_histodistill.layers.slide_facts import FACTS_KEY, slide_facts
from napari_histodistill.layers.slide_layer import slide_layer, slide_of
from napari_histodistill.slides import open_slide
from napari_histodistill.slides.formats.arrays import slide_from_arrays
from napari_histodistill.slides.tissue.writing import write_pyramid
from tests.fakes import array_slide, tissue_image


def test_a_layer_says_where_its_slide_is_from_and_how_large_its_pixels_are(tmp_path):
    path = write_pyramid(tmp_path / "a.ome.tif", tissue_image(600, 800), mpp=0.25)
    _, kwargs, _ = slide_layer(open_slide(path))
    facts = kwargs["metadata"][FACTS_KEY]
    assert facts["name"] == "a.ome.tif"
    assert facts["from"] == str(path)
    assert facts["size"] == "600 × 800 px (height × width)"
    assert facts["µm per pixel"].startswith("0.25 × 0.25 (y × x), from ")
    assert facts["levels"].startswith(f"{len(slide_of(kwargs['metadata']).levels)}: 1×")
    assert all(isinstance(fact, str) and fact for fact in facts.values())
    slide_of(kwargs["metadata"]).close()


def test_what_an_address_is_signed_with_is_not_in_it():
    slide = array_slide()
    signed = "https://host/a.zarr?sig=secret"
    info = replace(slide.info, address=signed, name="<b>a</b>")
    facts = slide_facts(slide.with_info(info))
    assert facts["from"] == "https://host/a.zarr"
    assert facts["name"] == "‹b›a‹/b›"
    assert "secret" not in str(facts)


def test_an_unknown_pixel_is_said_to_be():
    slide = slide_from_arrays(np.zeros((8, 8, 3), np.uint8), name="a")
    assert slide_facts(slide)["µm per pixel"] == "not known"
    assert "from" not in slide_facts(slide)

"""What a slide's layer says of it in words."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pydicom
import pytest
import tifffile

from napari_histodistill.controllers.shared.student_list import slide_words
from napari_histodistill.layers.slide_facts import FACTS_KEY, slide_facts
from napari_histodistill.layers.slide_layer import slide_layer, slide_of
from napari_histodistill.slides import open_slide
from napari_histodistill.slides.formats import czi, dicom, openslide
from napari_histodistill.slides.formats.arrays import slide_from_arrays
from napari_histodistill.slides.pyramid.optics import Optics, stated_optics
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


@pytest.mark.parametrize(
    ("stated", "found"),
    [
        (("20", "SS1302"), (20.0, "SS1302")),
        (
            ("40x", "Hamamatsu", "Hamamatsu C12000-22"),
            (40.0, "Hamamatsu C12000-22"),
        ),
        (
            ("20×", " Leica\n Biosystems ", None, "GT450"),
            (20.0, "Leica Biosystems GT450"),
        ),
        (("nan", "x" * 81), (None, "")),
        (("-5",), (None, "")),
        ((None, None), (None, "")),
    ],
)
def test_what_cannot_be_an_objective_is_none(stated, found):
    assert stated_optics(*stated) == Optics(*found)


def test_the_objective_and_the_scanner_are_read_where_files_say(tmp_path):
    said = "Aperio Image Library\r\n64x64 (64x64)|AppMag = 20|ScanScope ID = SS1302"
    pixels, how = tissue_image(64, 64), {"photometric": "rgb", "tile": (64, 64)}
    tifffile.imwrite(tmp_path / "a.svs", pixels, description=said, metadata=None, **how)
    xml = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        '<Instrument ID="i:0"><Microscope Model="Other"/></Instrument>'
        '<Instrument ID="i:1"><Microscope Manufacturer="Zeiss" Model="Axioscan 7"/>'
        '<Objective ID="o:0" NominalMagnification="40"/>'
        '<Objective ID="o:1" NominalMagnification="10"/></Instrument>'
        '<Image ID="Image:0"><InstrumentRef ID="i:1"/><ObjectiveSettings ID="o:1"/>'
        '<Pixels DimensionOrder="XYCZT" Type="uint8" SizeX="64" SizeY="64" SizeC="3"'
        ' SizeZ="1" SizeT="1"><Channel SamplesPerPixel="3"/><TiffData/></Pixels>'
        "</Image></OME>"
    )
    path = tmp_path / "b.ome.tif"
    tifffile.imwrite(path, pixels, description=xml, metadata=None, **how)
    for name, objective, scanner in (
        ("a.svs", "20×", "SS1302"),
        ("b.ome.tif", "10×", "Zeiss Axioscan 7"),
    ):
        with open_slide(tmp_path / name) as slide:
            facts = slide_facts(slide)
            words = slide_words(slide)
        assert (facts["objective"], facts["scanner"]) == (objective, scanner)
        assert f"Scanned at {objective} by {scanner}" in words


def test_openslide_dicom_and_czi_say_it_each_their_way():
    properties = {"openslide.objective-power": "20", "aperio.ScanScope ID": "SS1302"}
    assert openslide._optics(properties) == Optics(20.0, "SS1302")
    header = pydicom.Dataset()
    assert dicom._optics(header) == Optics()
    header.Manufacturer, header.ManufacturerModelName = "Leica Biosystems", "GT450"
    light = pydicom.Dataset()
    light.ObjectiveLensPower = "40"
    header.OpticalPathSequence = [light]
    assert dicom._optics(header) == Optics(40.0, "Leica Biosystems GT450")
    instrument = {
        "Microscopes": {"Microscope": {"@Name": "m", "System": "Axioscan 7"}},
        "Objectives": {"Objective": [{"NominalMagnification": "20"}]},
    }
    listed = {"Information": {"Instrument": instrument}}
    assert czi._optics(listed) == Optics(20.0, "Axioscan 7")
    assert czi._optics({"Information": None}) == Optics()

"""Files that the window loads: what they hold, and what a person must say of them."""

from __future__ import annotations

import numpy as np
import pytest

from napari_histodistill.controllers.distil.align.exchange import Held, look_into, take
from napari_histodistill.distill.exchange.frames import FixedImage, PointUnit
from napari_histodistill.distill.layers.registration import (
    LandmarkPairs,
    fit_landmarks,
    write_registration,
)
from napari_histodistill.errors import InputError
from napari_histodistill.geometry import Mpp
from napari_histodistill.slides import slide_from_arrays

PLACES_PX = np.array([(10, 20), (90, 30), (40, 80), (70, 70)], float)
OFF_PX = np.array([4.0, -2.0])
HE_UM, PARTNER_UM = 0.5, 0.25


def slide(name, um, side):
    pixels = np.zeros((side, side, 3), np.uint8)
    return slide_from_arrays(pixels, name=name, mpp=Mpp(um, um, "test"))


@pytest.fixture(scope="module")
def slides():
    return slide("H&E", HE_UM, 128), slide("partner", PARTNER_UM, 256)


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def anhir(path, places):
    rows = [f"{k},{x + 0.5},{y + 0.5}" for k, (y, x) in enumerate(places)]
    return write(path, "\n".join([",X,Y", *rows]) + "\n")


def close(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_landmarks_of_two_files(slides, tmp_path):
    there = (PLACES_PX + OFF_PX) * 2
    he = look_into(anhir(tmp_path / "he.csv", PLACES_PX))
    partner = anhir(tmp_path / "partner.csv", there)
    assert he.held is Held.POINTS
    assert not he.asks_unit
    found = take(he, *slides, partner=partner)
    assert found.alignment is None
    close(found.landmarks_um, (PLACES_PX * HE_UM, there * PARTNER_UM))
    with pytest.raises(InputError, match="choose the partner's, too"):
        take(he, *slides)
    short = anhir(tmp_path / "short.csv", there[:3])
    with pytest.raises(InputError, match="belong together row by row"):
        take(he, *slides, partner=short)


def test_landmarks_of_one_file_are_asked_about(slides, tmp_path):
    there = (PLACES_PX + OFF_PX) * 2
    rows = [
        f'"Pt-{k}","true","{b[1]}","{b[0]}","{a[1]}","{a[0]}"'
        for k, (a, b) in enumerate(zip(PLACES_PX, there, strict=True))
    ]
    chosen = look_into(write(tmp_path / "bigwarp.csv", "\n".join(rows)))
    assert chosen.held is Held.PAIRS
    assert chosen.asks_unit
    assert chosen.asks_fixed
    found = take(chosen, *slides, unit=PointUnit.PIXELS, fixed=FixedImage.HE)
    close(found.landmarks_um, (PLACES_PX * HE_UM, there * PARTNER_UM))
    with pytest.raises(InputError, match="lies off its image"):
        take(chosen, *slides, unit=PointUnit.PIXELS, fixed=FixedImage.PARTNER)


def test_a_transform_of_qupath_is_asked_which_image_was_fixed(slides, tmp_path):
    chosen = look_into(write(tmp_path / "a.txt", "2, 0, -4\n0, 2, 8\n"))
    assert chosen.held is Held.TRANSFORM
    assert chosen.asks_fixed
    assert not chosen.asks_unit
    found = take(chosen, *slides)
    assert found.landmarks_um is None
    # A pixel of the H&E is two of the partner, from edge to edge.
    there = (PLACES_PX + 0.5) * 2 + (8, -4) - 0.5
    laid = found.alignment.registration.to_dense(PLACES_PX * HE_UM)
    np.testing.assert_allclose(laid, there * PARTNER_UM, atol=1e-6)


def test_an_alignment_of_this_program_brings_its_landmarks(slides, tmp_path):
    here, there = PLACES_PX * HE_UM, (PLACES_PX + OFF_PX) * HE_UM
    known = fit_landmarks(here, there, "rigid")
    places = LandmarkPairs.measured(here, there, (HE_UM,) * 2, (PARTNER_UM,) * 2)
    write_registration(tmp_path / "a.json", known, places)
    chosen = look_into(tmp_path / "a.json")
    assert chosen.held is Held.OWN
    found = take(chosen, *slides)
    np.testing.assert_allclose(found.alignment.registration.matrix, known.matrix)
    close(found.landmarks_um, (here, there))


@pytest.mark.parametrize("text", ["{}", "a,b\n1,2\n", "", "#Insight Transform File"])
def test_other_files_are_refused_in_words(slides, tmp_path, text):
    path = write(tmp_path / "other.txt", text)
    with pytest.raises(InputError, match=r"other\.txt"):
        take(look_into(path), *slides, unit=PointUnit.PIXELS)

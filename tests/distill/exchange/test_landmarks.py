"""Landmarks of other programs: each convention by hand, all of them there and back."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_histodistill.distill.exchange.frames import (
    FixedImage,
    PointFrame,
    PointUnit,
    SectionFrames,
)
from napari_histodistill.distill.exchange.landmarks import (
    LandmarkFormat,
    bigwarp_text,
    landmarks_text,
    paired,
    read_landmarks,
)
from napari_histodistill.distill.layers.registration import LandmarkPairs
from napari_histodistill.errors import InputError

HE = PointFrame((1000, 2000), (0.5, 0.5))
PARTNER = PointFrame((600, 900), (1.0, 1.0))
FRAMES = SectionFrames(HE, PARTNER)


def read(tmp_path, text, name="l.csv"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return read_landmarks(path)


# Pixel (x 11, y 21) from the edge is (10.5, 20.5) from the first centre: 10.25 µm down.
@pytest.mark.parametrize(
    ("text", "format_"),
    [
        (",X,Y\n1,11,21\n2,101,201\n", LandmarkFormat.ANHIR),
        ("X,Y\n11,21\n101,201\n\n", LandmarkFormat.ANHIR),
        ("﻿ ,Area,X,Y\n1,0,11,21\n2,0,101,201\n", LandmarkFormat.ANHIR),
        (";X;Y\n1;11,0;21,0\n2;101,0;201,0\n", LandmarkFormat.ANHIR),
        ("x\ty\tclass\t\n11\t21\tA\t\n101\t201\t\t\n", LandmarkFormat.QUPATH_TSV),
        (
            "Name\tCentroid X µm\tCentroid Y µm\na\t5.5\t10.5\nb\t50.5\t100.5\n",
            LandmarkFormat.QUPATH_TSV,
        ),
        (
            json.dumps(
                {
                    "type": "Feature",
                    "geometry": {
                        "type": "MultiPoint",
                        "coordinates": [[11, 21], [101, 201]],
                    },
                }
            ),
            LandmarkFormat.QUPATH_GEOJSON,
        ),
    ],
)
def test_x_comes_first_and_pixels_count_from_the_edge(tmp_path, text, format_):
    found = read(tmp_path, text)
    assert found.format is format_
    np.testing.assert_allclose(found.um(HE), [[10.25, 5.25], [100.25, 50.25]])


def test_bigwarp_lists_the_moving_image_first_in_units_that_must_be_said(tmp_path):
    text = (
        '"Pt-0","true","30.0","40.0","10.0","20.0"\n'
        '"Pt-1","false","1","2","Infinity","Infinity"\n'
        '"Pt-2","true","31","41","11","21"\n'
    )
    found = read(tmp_path, text)
    assert len(found) == 2
    assert found.notes == ("Left out as switched off: 1.",)
    with pytest.raises(InputError, match="the landmark unit, px"):
        found.pair_um(FRAMES)
    he, partner = found.pair_um(FRAMES, PointUnit.MICROMETRES)
    np.testing.assert_allclose(he[0], (20, 10))
    np.testing.assert_allclose(partner[0], (40, 30))
    he, partner = found.pair_um(FRAMES, PointUnit.PIXELS)
    np.testing.assert_allclose(he[0], (10, 5))
    turned = SectionFrames(HE, PARTNER, FixedImage.PARTNER)
    he, partner = found.pair_um(turned, PointUnit.MICROMETRES)
    np.testing.assert_allclose(partner[0], (20, 10))
    volume = '"Pt-0","true",1,2,0,3,4,0\n'
    he, partner = read(tmp_path, volume).pair_um(FRAMES, PointUnit.MICROMETRES)
    np.testing.assert_allclose((*he[0], *partner[0]), (4, 3, 2, 1))


def test_napari_writes_y_first(tmp_path):
    found = read(tmp_path, "index,axis-0,axis-1\n0.0,20.0,10.0\n")
    with pytest.raises(InputError, match="the landmark unit, px"):
        found.um(HE)
    np.testing.assert_allclose(found.um(HE, PointUnit.PIXELS), [[10, 5]])


@settings(max_examples=15, deadline=None)
@given(
    places=st.lists(
        st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=6
    ),
    fixed=st.sampled_from(FixedImage),
    unit=st.sampled_from(PointUnit),
)
def test_every_format_gives_back_what_was_written(
    tmp_path_factory, places, fixed, unit
):
    home = tmp_path_factory.mktemp("there-and-back")
    he = np.array(places) * (HE.shape[0] * 0.5, HE.shape[1] * 0.5)
    partner = np.array(places) * PARTNER.shape
    frames = SectionFrames(HE, PARTNER, fixed)
    for format_ in (
        LandmarkFormat.ANHIR,
        LandmarkFormat.QUPATH_TSV,
        LandmarkFormat.QUPATH_GEOJSON,
        LandmarkFormat.NAPARI,
    ):
        sides = []
        for points, frame in ((he, HE), (partner, PARTNER)):
            path = home / f"{len(sides)}"
            path.write_text(landmarks_text(format_, points, frame), encoding="utf-8")
            sides.append(read_landmarks(path))
            assert sides[-1].format is format_
        known = PointUnit.PIXELS if format_ is LandmarkFormat.NAPARI else None
        found = paired(*sides, frames, known)
        np.testing.assert_allclose(found[0], he, atol=1e-6)
        np.testing.assert_allclose(found[1], partner, atol=1e-6)
    pairs = LandmarkPairs.measured(he, partner, HE.mpp, PARTNER.mpp)
    (home / "both").write_text(bigwarp_text(pairs, frames, unit), encoding="utf-8")
    found = read_landmarks(home / "both").pair_um(frames, unit)
    np.testing.assert_allclose(found[0], he, atol=1e-6)
    np.testing.assert_allclose(found[1], partner, atol=1e-6)
    (home / "own").write_text(json.dumps({"landmarks": pairs.content()}))
    found = read_landmarks(home / "own").pair_um(frames)
    np.testing.assert_allclose(found[0], he, atol=1e-3)
    np.testing.assert_allclose(found[1], partner, atol=1e-3)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("1,2\n3,4\n", "names no columns X and Y"),
        ("X,Y\n", "holds no landmarks"),
        ("X,Y\n1,2\n3\n", "row 3 is not two numbers"),
        ("X,Y\n1,two\n", "row 2 is not two numbers"),
        ("X,Y\n1,inf\n", "row 2 is not two numbers"),
        ("X µm,Y px\n1,2\n", "different units"),
        ("index,axis-0,axis-1,axis-2\n0,1,2,3\n", "have 3 axes"),
        ('"Pt-0","true",1,2,Infinity,4\n', "on one image only"),
        ('"Pt-0","true",1,2,3,4\nodd\n', "row 2 is not one of BigWarp's"),
        ("{", "damaged JSON"),
        ("{}", "holds no points"),
        ('{"landmarks": 3}', "not those that this program writes"),
        ('{"type": "Point", "coordinates": ["a", 2]}', "a point is not two numbers"),
        ('{"type": "Point", "coordinates": [NaN, 2]}', "a position is not a number"),
    ],
)
def test_what_holds_no_landmarks_is_refused_in_a_sentence(tmp_path, text, said):
    with pytest.raises(InputError, match=said) as refused:
        read(tmp_path, text)
    assert "l.csv: " in str(refused.value)


def test_landmarks_off_the_image_and_of_unequal_number_are_refused(tmp_path):
    one = read(tmp_path, "X,Y\n5,5\n1999,1100\n")
    with pytest.raises(InputError, match="landmark 2 lies off its image"):
        one.um(HE)
    two = read(tmp_path, "X,Y\n5,5\n", "two.csv")
    with pytest.raises(InputError, match=r"holds 2 landmarks, .*1: they belong"):
        paired(one, two, FRAMES)
    both = read(tmp_path, '"Pt-0","true",1,2,3,4\n', "both.csv")
    with pytest.raises(InputError, match="landmarks of both images"):
        paired(one, both, FRAMES)
    with pytest.raises(InputError, match="landmarks of one image"):
        one.pair_um(FRAMES)

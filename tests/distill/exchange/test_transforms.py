"""Transforms of other programs: each convention by hand, all of them there and back."""

from __future__ import annotations

import json
from pathlib import Path

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
from napari_histodistill.distill.exchange.transforms import (
    TransformFormat,
    format_for,
    kind_of,
    read_transform,
    transform_text,
    without_evidence,
    write_transform,
)
from napari_histodistill.distill.layers.registration import (
    LandmarkPairs,
    apply,
    fit_landmarks,
    write_registration,
)
from napari_histodistill.errors import InputError

HE = PointFrame((1000, 2000), (0.5, 0.5))
PARTNER = PointFrame((600, 900), (1.0, 1.0))
FRAMES = SectionFrames(HE, PARTNER)
TURNED = SectionFrames(HE, PARTNER, FixedImage.PARTNER)

ITK = """#Insight Transform File V1.0
#Transform 0
Transform: {}_double_2_2
Parameters: {}
FixedParameters: {}
"""
ELASTIX = """// a comment
(Transform "{}")
(NumberOfParameters {})
(TransformParameters {})
(InitialTransformParametersFileName "{}")
(HowToCombineTransforms "Compose")
(FixedImageDimension 2)
(Size {})
(Spacing {})
(Origin 0 0)
(CenterOfRotationPoint 10 20)
"""


def read(tmp_path, text, frames=FRAMES, unit=None, name="t.txt"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return read_transform(path, frames, unit=unit)


def lands(found, y, x):
    """Where a place of the H&E (µm) lies on the partner (µm)."""
    return apply(found.registration.matrix, np.array([[y, x]], float))[0]


# --- by hand ------------------------------------------------------------------------


def test_qupaths_numbers_map_the_viewers_pixels_to_the_overlays_from_edges(tmp_path):
    # x' = x / 2 + 100, y' = y / 2 + 10, between pixel edges.
    found = read(tmp_path, "0.5, 0.0, 100.0,\n0.0, 0.5, 10.0")
    # µm (y 49.75, x 99.75) is the edge position (100, 200) of the H&E: (60, 200) there.
    np.testing.assert_allclose(lands(found, 49.75, 99.75), (59.5, 199.5))
    assert found.format is TransformFormat.QUPATH
    as_json = '{"m00": 0.5, "m10": 0, "m01": 0, "m11": 0.5, "m02": 100, "m12": 10}'
    same = read(tmp_path, as_json)
    np.testing.assert_allclose(same.registration.matrix, found.registration.matrix)


def test_an_image_server_of_qupath_holds_the_opposite(tmp_path):
    plain = {"m00": 0.5, "m10": 0, "m01": 0, "m11": 0.5, "m02": 100, "m12": 10}
    back = {"m00": 2, "m10": 0, "m01": 0, "m11": 2, "m02": -200, "m12": -20}
    server = {"builderType": "affine", "transform": back}
    a, b = (read(tmp_path, json.dumps(x)) for x in (plain, server))
    np.testing.assert_allclose(a.registration.matrix, b.registration.matrix)


def test_itks_points_go_from_the_fixed_image_to_the_moving_one(tmp_path):
    # A quarter turn about (x 10, y 20), (x, y) → (10 − (y − 20), 20 + (x − 10)), and
    # then 1 to the right and 2 down.
    text = ITK.format("Euler2DTransform", f"{np.pi / 2!r} 1 2", "10 20")
    found = read(tmp_path, text, unit=PointUnit.MICROMETRES)
    np.testing.assert_allclose(lands(found, 50, 40), (20 + 30 + 2, 10 - 30 + 1))
    assert found.registration.kind == "rigid"
    millimetres = read(tmp_path, text, unit=PointUnit.MILLIMETRES)
    np.testing.assert_allclose(lands(millimetres, 5e4, 4e4), (5.2e4, -1.9e4))
    # The partner fixed: the same numbers the other way round.
    turned = read(tmp_path, text, TURNED, PointUnit.MICROMETRES)
    np.testing.assert_allclose(lands(turned, 52, -19), (50, 40), atol=1e-9)


def test_the_transform_added_last_to_a_composite_is_applied_first(tmp_path):
    parts = [
        "#Insight Transform File V1.0\nTransform: CompositeTransform_double_2_2\n",
        "Transform: TranslationTransform_double_2_2\nParameters: 5 0\n",
        "Transform: ScaleTransform_double_2_2\nParameters: 2 2\nFixedParameters: 0 0\n",
    ]
    found = read(tmp_path, "".join(parts), unit=PointUnit.MICROMETRES)
    np.testing.assert_allclose(lands(found, 10, 10), (20, 25))
    with pytest.raises(InputError, match="save them as one composite"):
        read(tmp_path, parts[0].splitlines()[0] + "\n" + "".join(parts[1:]))


@pytest.mark.parametrize(
    ("kind", "parameters", "expected"),
    [
        ("TranslationTransform", "3 4", (24, 13)),
        ("EulerTransform", f"{np.pi / 2!r} 0 0", (20 + 0, 10 - 0)),
        ("SimilarityTransform", "2 0 0 0", (20, 10)),
        ("AffineTransform", "1 0 0 1 3 4", (24, 13)),
    ],
)
def test_elastix_parameters_about_their_centre(tmp_path, kind, parameters, expected):
    text = ELASTIX.format(
        kind, 3, parameters, "NoInitialTransform", "2000 1000", "0.5 0.5"
    )
    found = read(tmp_path, text, unit=PointUnit.MICROMETRES)
    np.testing.assert_allclose(lands(found, 20, 10), expected, atol=1e-9)


def test_elastix_files_tell_their_unit_by_the_fixed_images_size(tmp_path):
    def saying(size, spacing, frames=FRAMES):
        text = ELASTIX.format(
            "AffineTransform", 6, "1 0 0 1 1 0", "NoInitialTransform", size, spacing
        )
        return read(tmp_path, text, frames)

    # The H&E is 2000 × 1000 px of 0.5 µm: 1000 × 500 µm, at any reduction.
    for size, spacing, shift in (
        ("2000 1000", "0.5 0.5", 1.0),
        ("250 125", "4 4", 1.0),
        ("250 125", "0.004 0.004", 1000.0),
    ):
        found = saying(size, spacing)
        np.testing.assert_allclose(lands(found, 0, 0), (0, shift), atol=1e-9)
    pixels = saying("2000 1000", "1 1")
    np.testing.assert_allclose(lands(pixels, 0, 0), (0, 1.0), atol=1e-9)
    np.testing.assert_allclose(lands(pixels, 0, 100), (0, 201.0), atol=1e-9)
    with pytest.raises(InputError, match="the transform unit, um, mm, or px"):
        saying("200 100", "1 1")


def test_elastix_chains_are_followed_beside_the_file(tmp_path):
    first = ELASTIX.format(
        "TranslationTransform", 2, "7 0", "NoInitialTransform", "1 1", "1 1"
    )
    (tmp_path / "T.0.txt").write_text(first)
    second = ELASTIX.format(
        "SimilarityTransform", 4, "2 0 0 0", r"C:\old\T.0.txt", "1 1", "1 1"
    )
    found = read(tmp_path, second, unit=PointUnit.MICROMETRES, name="T.1.txt")
    # First 7 to the right, then twice as far from (x 10, y 20).
    np.testing.assert_allclose(lands(found, 20, 10), (20, 10 + 2 * 7))
    added = second.replace("Compose", "Add")
    found = read(tmp_path, added, unit=PointUnit.MICROMETRES, name="T.1.txt")
    np.testing.assert_allclose(lands(found, 20, 10), (20, 10 + 7))
    circle = first.replace("NoInitialTransform", "T.1.txt")
    (tmp_path / "T.0.txt").write_text(circle)
    with pytest.raises(InputError, match="in a circle"):
        read(tmp_path, second, unit=PointUnit.MICROMETRES, name="T.1.txt")
    (tmp_path / "T.0.txt").unlink()
    with pytest.raises(InputError, match="put it beside this file"):
        read(tmp_path, second, unit=PointUnit.MICROMETRES, name="T.1.txt")


def test_our_own_files_keep_their_evidence(tmp_path):
    rng = np.random.default_rng(0)
    here = rng.uniform(0, 400, (6, 2))
    there = apply(np.array([[0, -1.0, 500], [1.0, 0, 3], [0, 0, 1]]), here)
    known = fit_landmarks(here, there + rng.normal(0, 1, (6, 2)), "rigid")
    pairs = LandmarkPairs.measured(here, there, HE.mpp, PARTNER.mpp)
    path = tmp_path / "own.json"
    write_registration(path, known, pairs)
    found = read_transform(path, TURNED)
    assert found.registration.median_um == known.median_um
    assert found.landmarks is not None
    np.testing.assert_allclose(found.registration.matrix, known.matrix)
    # What the command line prints: the partner's µm to the H&E's.
    path.write_text(json.dumps({"matrix_um": np.linalg.inv(known.matrix).tolist()}))
    np.testing.assert_allclose(
        read_transform(path, FRAMES).registration.matrix, known.matrix, atol=1e-9
    )


# --- there and back -----------------------------------------------------------------

numbers = st.floats(-1, 1)


@settings(max_examples=25, deadline=None)
@given(
    linear=st.tuples(numbers, numbers, numbers, numbers),
    shift=st.tuples(st.floats(-5e4, 5e4), st.floats(-5e4, 5e4)),
    fixed=st.sampled_from(FixedImage),
    mpp=st.tuples(st.floats(0.1, 8), st.floats(0.1, 8)),
)
def test_every_format_gives_back_what_was_written(
    tmp_path_factory, linear, shift, fixed, mpp
):
    matrix = np.eye(3)
    matrix[:2, :2] += 0.4 * np.reshape(linear, (2, 2))
    matrix[:2, 2] = shift
    frames = SectionFrames(
        PointFrame((1000, 2000), (mpp[0], 1.05 * mpp[0])),
        PointFrame((600, 900), (mpp[1], mpp[1])),
        fixed,
    )
    registration = without_evidence(matrix)
    home = tmp_path_factory.mktemp("there-and-back")
    for format_, unit, as_json in (
        (TransformFormat.QUPATH, PointUnit.PIXELS, True),
        (TransformFormat.QUPATH, PointUnit.PIXELS, False),
        (TransformFormat.ITK, PointUnit.MILLIMETRES, True),
        (TransformFormat.ELASTIX, PointUnit.MICROMETRES, True),
        (TransformFormat.ELASTIX, PointUnit.PIXELS, True),
    ):
        text = transform_text(format_, registration, frames, unit=unit, as_json=as_json)
        path = home / "t"
        write_transform(path, text)
        found = read_transform(path, frames, unit=unit)
        assert found.format is format_
        np.testing.assert_allclose(
            found.registration.matrix, matrix, rtol=1e-9, atol=1e-6
        )


def test_simpleitk_reads_what_is_written_and_is_read_itself(tmp_path):
    itk = pytest.importorskip("SimpleITK")
    turn = itk.Similarity2DTransform(1.2, 0.3, (4.0, -5.0), (100.0, 50.0))
    composite = itk.CompositeTransform(
        [itk.TranslationTransform(2, (5.0, 1.0)), turn, itk.Euler2DTransform()]
    )
    for k, one in enumerate((turn, composite)):
        path = tmp_path / f"{k}.tfm"
        itk.WriteTransform(one, str(path))
        found = read_transform(path, FRAMES, unit=PointUnit.MICROMETRES)
        x, y = one.TransformPoint((30.0, 70.0))
        np.testing.assert_allclose(lands(found, 70, 30), (y, x))
        text = transform_text(TransformFormat.ITK, found.registration, FRAMES)
        write_transform(tmp_path / "ours.tfm", text)
        again = itk.ReadTransform(str(tmp_path / "ours.tfm"))
        np.testing.assert_allclose(again.TransformPoint((30.0, 70.0)), (x, y))


# --- what cannot be used --------------------------------------------------------------

EULER = ITK.format("Euler2DTransform", "0 1 2", "0 0")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not a transform that is known"),
        ("1 2 3 4 5", "is not a transform that is known"),
        ("{", "damaged JSON"),
        ("[]", "is not a transform that is known"),
        ('{"m00": 1}', "six numbers, m00 to m12"),
        ('{"format": "x"}', "not a registration that this program wrote"),
        ('{"matrix_um": [[1, 0], [0, 1]]}', "cannot be a transform"),
        ("0 0 0 0 0 0", "cannot be a transform"),
        ("nan 0 0 0 1 0", "cannot be a transform"),
        ("100 0 0 0 100 0", "times as large on the partner"),
        (EULER, "the transform unit, um, mm, or px"),
        (EULER.replace("0 1 2", "0 1"), "has 3 parameters"),
        (EULER.replace("0 1 2", "0 1 x"), "a parameter is not a number"),
        (EULER.replace("0 1 2", "0 inf 0"), "not a finite number"),
        (EULER.replace("_2_2", "_3_3"), "for 3 dimensions"),
        (EULER.replace("Euler2D", "Odd"), "OddTransform is not read"),
        (EULER.replace("Euler2DTransform", "BSplineTransform"), "is not affine"),
        (EULER.splitlines()[0], "holds no transform"),
        ('(Transform "BSplineTransform")', "is not affine"),
        ('(Transform "OddTransform")', "OddTransform is not read"),
        ('(Transform "EulerTransform")', "TransformParameters is missing"),
        ('(Transform "EulerTransform")\n(FixedImageDimension 3)', "for volumes"),
    ],
)
def test_what_is_no_affine_transform_is_refused_in_a_sentence(tmp_path, text, said):
    with pytest.raises(InputError, match=said) as refused:
        read(tmp_path, text)
    assert "t.txt: " in str(refused.value)


def test_binary_and_missing_files_are_refused(tmp_path):
    (tmp_path / "t.h5").write_bytes(b"\x89HDF\r\n\x1a\n\0\0")
    with pytest.raises(InputError, match="not a text file"):
        read_transform(tmp_path / "t.h5", FRAMES)
    with pytest.raises(InputError, match="no such file"):
        read_transform(tmp_path / "none", FRAMES)


def test_kinds_and_endings():
    turn = np.array([[0, -1, 5], [1, 0, 5], [0, 0, 1.0]])
    assert kind_of(turn) == "rigid"
    assert kind_of(turn * [[2], [2], [1]]) == "similarity"
    assert kind_of(turn * [[2], [1], [1]]) == "affine"
    assert format_for(Path("a.TFM")) is TransformFormat.ITK
    assert format_for(Path("a.txt")) is TransformFormat.ELASTIX
    assert format_for(Path("a.json")) is TransformFormat.OWN

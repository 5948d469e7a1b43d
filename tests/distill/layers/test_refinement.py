"""Refining a registration: known transforms come back, and nothing is claimed."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

from napari_histodistill.distill.layers.likeness import (
    agreement,
    distinctness,
    take_overviews,
)
from napari_histodistill.distill.layers.partners import dense_layer
from napari_histodistill.distill.layers.refinement import Refinement, grown, refine
from napari_histodistill.distill.layers.registration import (
    apply,
    fit_landmarks,
    inverse,
)
from napari_histodistill.errors import Cancelled, InputError
from napari_histodistill.geometry import Mpp
from napari_histodistill.running import CancelToken
from napari_histodistill.samples.paired import CHANNELS, paint_pair
from napari_histodistill.slides import open_slide, slide_from_arrays

MPP = Mpp(0.5, 0.5, "test")
SIX_DOWN = np.array([6.0, 0.0])


@pytest.fixture(scope="module")
def painted():
    pair = paint_pair(640)
    sparse = slide_from_arrays(pair.sparse, name="H&E", mpp=MPP)
    dense = slide_from_arrays(pair.dense, name="marker", mpp=MPP, channels=CHANNELS)
    return sparse, dense


@pytest.fixture
def itk():
    return pytest.importorskip(
        "SimpleITK", reason="refining needs the extra [registration]"
    )


def off_by(degrees, shift, scale=1.0):
    """Return a matrix about the middle of the painted pair."""
    turn, middle = np.radians(degrees), np.array([160.0, 160.0])
    made = np.eye(3)
    made[:2, :2] = scale * np.array(
        [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    )
    made[:2, 2] = middle - made[:2, :2] @ middle + shift
    return made


def refined(sparse, dense, matrix, kind, *, token=None, **kwargs):
    layer = dense_layer(dense, name=dense.name, tile_px=64, matrix=matrix)
    found = list(
        refine(
            take_overviews(sparse, layer),
            kind,
            cancel=token or CancelToken(),
            **kwargs,
        )
    )
    *shares, last = found
    assert shares == sorted(shares)
    assert isinstance(last, Refinement)
    return last


@pytest.mark.parametrize(
    ("kind", "start"),
    [
        ("rigid", off_by(1.2, (5, -4))),
        ("similarity", off_by(-1, (-4, 3), 1.015)),
        ("affine", off_by(0.7, (3, 4))),
    ],
)
def test_a_known_transform_comes_back(itk, painted, kind, start):
    """The layers are in register: what is found must undo the start."""
    found = refined(*painted, start, kind)
    assert found.accepted, found.why_not
    places = np.random.default_rng(0).uniform(20, 300, (200, 2))
    off = np.linalg.norm(apply(found.after.matrix, places) - places, axis=1)
    # The overviews have 1 µm per pixel.
    assert off.max() < 0.5
    before = np.linalg.norm(apply(start, places) - places, axis=1)
    assert np.median(before) > 4
    assert found.moved_um == pytest.approx(np.sqrt((before**2).mean()), rel=0.2)
    assert found.agreement[1] > 2 * found.agreement[0]


def test_clumsy_landmarks_are_improved_and_judged_where_not_seen(itk, painted):
    rng = np.random.default_rng(4)
    here = rng.uniform(30, 290, (8, 2))
    there = here + rng.normal(0, 4, here.shape)
    before = fit_landmarks(here, there, "rigid")
    found = refined(
        *painted,
        before.matrix,
        "rigid",
        before=before,
        landmarks_um=(here, there),
    )
    assert found.accepted, found.why_not
    assert found.held_out
    assert found.after.residuals_um.shape == (8,)
    used = found.after.residuals_um[before.inliers]
    assert np.median(used) == pytest.approx(found.errors_um[1])
    off = np.linalg.norm(found.after.to_dense(here) - here, axis=1)
    assert off.max() < 0.5


def test_what_landmarks_deny_is_not_used(itk, painted):
    """The pictures fit best in register, these landmarks say it is 6 µm elsewhere."""
    here = np.random.default_rng(1).uniform(30, 290, (8, 2))
    for rows in (8, 3):  # with and without enough for two halves
        before = fit_landmarks(here[:rows], here[:rows] + SIX_DOWN, "rigid")
        found = refined(
            *painted,
            before.matrix,
            "rigid",
            before=before,
            landmarks_um=(here[:rows], here[:rows] + SIX_DOWN),
        )
        assert not found.accepted
        assert "would be off by 6" in found.why_not
        assert found.held_out == (rows == 8)


def test_held_out_landmarks_that_got_worse_are_believed():
    """94 → 114 µm was accepted: single landmarks scattered more than that."""
    started = np.array([40.0, 80, 90, 98, 150, 190])
    ended = np.array([150.0, 20, 110, 118, 240, 80])
    assert np.median(started) == 94
    assert np.median(ended) == 114
    assert grown(started, ended)
    assert not grown(ended, started)
    # A hand's own error, and no more than the landmarks scatter: nobody can tell.
    assert not grown(started, started + np.array([20, -18, 3, 3, -10, 4]))
    assert grown(started, started + 3)


def test_unrelated_layers_are_refused(itk, painted):
    sparse, _ = painted
    other = np.rot90(paint_pair(640, seed=5).dense)[::-1, 5:-20]
    stranger = slide_from_arrays(
        np.ascontiguousarray(other), name="x", mpp=MPP, channels=CHANNELS
    )
    found = refined(sparse, stranger, off_by(8, (13, 8)), "rigid")
    assert not found.accepted
    assert "no more alike here" in found.why_not


def test_agreement_and_distinctness(painted):
    sparse, dense = painted
    layer = dense_layer(dense, name="marker", tile_px=64)
    overviews = take_overviews(sparse, layer)
    assert overviews.um_per_px == 1
    assert overviews.sparse.shape == overviews.dense.shape == (320, 320)
    rng = np.random.default_rng(0)
    noise = rng.random(overviews.sparse.shape).astype(np.float32)
    everywhere = np.ones(noise.shape, np.bool_)
    assert agreement(noise, noise, everywhere) == pytest.approx(5, abs=0.05)
    assert agreement(noise, overviews.dense, everywhere) < 0.02
    assert agreement(noise, noise, ~everywhere) == 0
    assert distinctness(overviews, np.eye(3)) > 10
    assert distinctness(replace(overviews, dense=noise), np.eye(3)) < 1.25
    # Read through a matrix, the partner lies as if it had been moved by its inverse.
    shifted = replace(layer, matrix=off_by(0, (20.0, 0.0)))
    moved = take_overviews(sparse, shifted)
    np.testing.assert_allclose(moved.dense[:280], overviews.dense[20:300], atol=0.02)


def test_it_stops_when_asked_and_when_time_is_up(itk, painted):
    token = CancelToken()
    token.cancel()
    with pytest.raises(Cancelled):
        refined(*painted, np.eye(3), "rigid", token=token)
    # In the middle, too: ITK asks in every iteration.
    token = CancelToken()
    layer = dense_layer(painted[1], name="marker", tile_px=64, matrix=off_by(2, (9, 9)))
    overviews = take_overviews(painted[0], layer)
    threading.Timer(0.05, token.cancel).start()
    with pytest.raises(Cancelled):
        list(refine(overviews, "affine", cancel=token))
    hurried = refined(*painted, off_by(1, (5, 5)), "rigid", budget_s=0.0)
    assert isinstance(hurried, Refinement)


def test_without_the_library_or_something_to_compare_it_says_so(painted, monkeypatch):
    sparse, dense = painted
    mask = slide_from_arrays(
        (np.arange(640 * 640).reshape(640, 640) % 7).astype(np.uint8),
        name="nuclei",
        mpp=MPP,
    )
    outlines = dense_layer(mask, name="nuclei", tile_px=64, kind="mask")
    with pytest.raises(InputError, match="no grey values to compare"):
        take_overviews(sparse, outlines)
    far = dense_layer(dense, name="far", tile_px=64, matrix=off_by(0, (9e4, 0)))
    with pytest.raises(InputError, match="share no tissue where they lie now"):
        take_overviews(sparse, far)
    monkeypatch.setitem(__import__("sys").modules, "SimpleITK", None)
    with pytest.raises(InputError, match=r"napari-histodistill\[registration\]"):
        refined(sparse, dense, np.eye(3), "rigid")


@pytest.mark.data
@pytest.mark.parametrize("every", [pytest.param(9, marks=pytest.mark.long), 2])
def test_real_serial_sections(itk, data, every):
    """Every other landmark, or every ninth, fit; the rest say what refining was worth.

    The images have 5 % of the scan's size and say no µm: "µm" are their pixels here.
    """
    one = Mpp(1, 1, "pixels of the 5 % images")
    folder = data / "stains"
    sparse, dense = (
        open_slide(folder / f"Izd2-29-041-w35_{name}.jpg").with_mpp(one)
        for name in ("HE", "proSPC")
    )
    here, there = (
        np.loadtxt(path, delimiter=",", skiprows=1)[:, [2, 1]]
        for path in sorted(folder.glob("*.csv"))
    )
    fitted = np.zeros(len(here), np.bool_)
    fitted[::every] = True
    before = fit_landmarks(here[fitted], there[fitted], "similarity")
    found = refined(
        sparse,
        dense,
        before.matrix,
        "similarity",
        before=before,
        landmarks_um=(here[fitted], there[fitted]),
    )

    def error(matrix):
        off = apply(matrix, here[~fitted]) - there[~fitted]
        return float(np.median(np.linalg.norm(off, axis=1)))

    start, end = error(before.matrix), error(found.after.matrix)
    print(
        f"{fitted.sum()} landmarks fitted, {(~fitted).sum()} held out: median error "
        f"{error(np.eye(3)):.1f} px as they lie, {start:.2f} px fitted, {end:.2f} px "
        f"refined (accepted: {found.accepted}; halves say {found.errors_um})"
    )
    assert end < 1.1 * start
    assert inverse(found.after.matrix).shape == (3, 3)

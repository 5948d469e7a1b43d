"""The automatic start: found from anywhere, refused where there is nothing to find."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from napari_histodistill.distill.layers.blocks import LEAST_SCORE, BlockShifts
from napari_histodistill.distill.layers.finding import (
    LEAST_FOUND,
    Found,
    find,
    least_margin,
)
from napari_histodistill.distill.layers.likeness import take_overviews
from napari_histodistill.distill.layers.partners import dense_layer
from napari_histodistill.distill.layers.refinement import refine
from napari_histodistill.distill.layers.registration import apply
from napari_histodistill.errors import Cancelled, InputError
from napari_histodistill.geometry import Mpp
from napari_histodistill.running import CancelToken
from napari_histodistill.slides import slide_from_arrays

UM = 2.0
SHAPE = 300, 380
GLASS = 243


@pytest.fixture(autouse=True)
def itk():
    return pytest.importorskip(
        "SimpleITK", reason="finding needs the extra [registration]"
    )


def section(seed: int = 0, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """Return nuclei of changing density in tissue with an outline, as H&E."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    body = ((y - 150) / 135) ** 2 + ((x - 170) / 155) ** 2 < 1
    lobe = ((y - 210) / 60) ** 2 + ((x - 300) / 75) ** 2 < 1
    tissue = gaussian_filter((body | lobe).astype(float), 1)
    crowd = gaussian_filter(rng.normal(size=shape), 9)
    cells = gaussian_filter(rng.normal(size=shape), 2) + 2.5 * crowd / crowd.std() * 0.1
    nuclei = tissue / (1 + np.exp(-9 * (cells - cells.mean()) / cells.std() * 0.4))
    density = nuclei[..., None] * [0.65, 0.70, 0.29] + 0.18 * tissue[..., None] * [
        *(0.07, 0.99, 0.11)
    ]
    light = np.exp(-1.2 * density) * GLASS + rng.normal(scale=2, size=(*shape, 1))
    return np.clip(light, 0, 255).astype(np.uint8)


def other_stain(he: np.ndarray) -> np.ndarray:
    """Return it pale, brown on one half, and softer."""
    dark = 1 - he.min(-1, keepdims=True) / GLASS
    half = np.linspace(0, 1, he.shape[1])[None, :, None]
    blue, brown = dark * [0.5, 0.4, 0.2], dark * half * [0.2, 0.5, 0.8]
    light = GLASS * np.exp(-0.7 * (blue + brown))
    return np.clip(gaussian_filter(light, (0.7, 0.7, 0)), 0, 255).astype(np.uint8)


def posed(picture, turns, mirrored):
    """Return a picture mirrored left to right, then turned, and places in it."""
    places = np.stack(np.meshgrid(range(60, 250, 30), range(60, 300, 30)), -1)
    here = places.reshape(-1, 2).astype(float)
    there = here.copy()
    if mirrored:
        picture, there[:, 1] = picture[:, ::-1], picture.shape[1] - 1 - there[:, 1]
    for _ in range(turns):
        there = np.stack([picture.shape[1] - 1 - there[:, 1], there[:, 0]], axis=1)
        picture = np.rot90(picture)
    return np.ascontiguousarray(picture), here, there


def layers(sparse, dense, stated=1.0, **kwargs):
    he = slide_from_arrays(sparse, name="he", mpp=Mpp(UM, UM, "a test"))
    theirs = Mpp(UM * stated, UM * stated, "a test")
    other = slide_from_arrays(dense, name="other", mpp=theirs)
    return he, dense_layer(other, name="other", tile_px=8, **kwargs)


def found(*args, **kwargs) -> Found:
    *shares, last = find(*args, cancel=CancelToken(), **kwargs)
    assert shares == sorted(shares)
    assert 0 <= shares[0] <= shares[-1] == 1
    assert isinstance(last, Found)
    return last


def test_a_partner_is_found_wherever_it_lies():
    """From a wrong turn, side and µm/px *Refine* ended 590 to 1,890 µm away."""
    he, stated = section(), 0.5
    ihc, here, there = posed(other_stain(he), 1, mirrored=True)
    landmarks = here[::9] * UM, there[::9] * UM * stated
    best = found(*layers(he, ihc, stated), "affine", landmarks_um=landmarks)
    assert best.accepted, best.reasons
    assert best.reasons == ()
    assert (best.turns, best.mirrored) == (1, True)
    assert best.scale == pytest.approx(stated, rel=0.02)
    assert best.margin > least_margin(best.score)
    assert best.score > LEAST_FOUND
    known = best.registration
    assert known.kind == "affine"
    off = np.linalg.norm(known.to_dense(here * UM) - there * UM * stated, axis=1)
    assert np.median(off) < 0.6 * UM * stated
    # Landmarks that agree do not object, and judge.
    assert known.error_um == np.median(known.residuals_um) < UM
    # No worse than its pixels: 0 would say more than blocks that shift by whole ones.
    assert 0.1 * UM < known.stated_um / stated < 1.5 * UM
    assert 0 < known.confidence(20 * UM * stated) < 1


@pytest.mark.slow(18)
def test_strangers_are_refused():
    he, other = section(), other_stain(section(7)[:, 40:])
    best = found(*layers(he, np.ascontiguousarray(other)), "rigid")
    assert not best.accepted
    assert "no more alike there" in best.reasons[0]


@pytest.mark.parametrize(
    ("score", "margin", "is_enough"),
    [
        (10.9, 6.4, False),  # two parts of one slide that do not belong together
        (13.9, 6.4, False),  # a wrong place of a pair that belongs
        (15.7, 10.8, True),  # a small part of the lung, right
        (11.0, 11.0, True),  # another
        (18.8, 8.4, True),
        (60.0, 3.9, False),  # tissue that looks the same when it is mirrored
    ],
)
def test_what_is_little_alike_must_lead_by_more(score, margin, is_enough):
    assert (margin >= least_margin(score)) is is_enough


def test_one_blob_that_meets_another_is_no_evidence():
    """Much glass, and on it a speck each: every block that saw them agreed."""
    shifts = np.zeros((60, 2))
    shifts[20:] = 9.0
    centres = np.random.default_rng(0).uniform(0, 400, (60, 2))
    spread = BlockShifts(centres, shifts, np.ones(60), um=1.0)
    assert spread.score > LEAST_SCORE
    centres = np.concatenate([100 + centres[:20] % 20, centres[20:]])
    assert BlockShifts(centres, shifts, np.ones(60), um=1.0).score == 0


def test_outlines_are_found_and_landmarks_that_deny_them_believed():
    he = section()
    marks = (1 - he.min(-1) / GLASS > 0.45).astype(np.uint8)[..., None]
    marks, here, there = posed(marks, 3, mirrored=False)
    landmarks = here[::9] * UM, there[::9] * UM + np.array([300, 80])
    pair = layers(he, marks, kind="mask")
    best = found(*pair, "rigid", landmarks_um=landmarks)
    assert best.registration.kind == "rigid"
    assert (best.turns, best.mirrored) == (3, False)
    off = best.registration.to_dense(here * UM) - there * UM
    assert np.median(np.linalg.norm(off, axis=1)) < UM
    assert min(best.score - LEAST_FOUND, best.margin - least_margin(best.score)) > 0
    assert not best.accepted
    assert "landmarks would be off by 31" in best.reasons[0]
    assert best.registration.error_um > 300


def test_nothing_to_compare_is_said():
    he = section()
    glass = np.full((*SHAPE, 3), GLASS, np.uint8)
    with pytest.raises(InputError, match="other is the same everywhere"):
        found(*layers(he, glass))
    with pytest.raises(InputError, match="he is the same everywhere"):
        found(*layers(glass, he))


def test_it_stops_when_asked(monkeypatch):
    he = section()
    token = CancelToken()
    work = find(*layers(he, other_stain(he)), cancel=token)
    assert next(work) > 0
    token.cancel()
    with pytest.raises(Cancelled):
        list(work)
    monkeypatch.setitem(__import__("sys").modules, "SimpleITK", None)
    with pytest.raises(InputError, match=r"napari-histodistill\[registration\]"):
        list(find(*layers(he, other_stain(he)), cancel=CancelToken()))


@pytest.mark.parametrize(
    ("turns", "mirrored", "stated"),
    [(2, False, 1.0), (0, True, 1.0), (0, False, 0.5)],
)
def test_refining_without_landmarks_claims_nothing_in_a_wrong_place(
    turns, mirrored, stated
):
    """It was accepted, 590 to 1,890 µm off, as agreeing *more than before*."""
    ihc, *_ = posed(other_stain(section()), turns, mirrored)
    overviews = take_overviews(*layers(section(), ihc, stated))
    *_, refined = refine(overviews, "affine", cancel=CancelToken())
    assert not refined.accepted
    assert "no more alike here" in refined.why_not


def test_refining_without_landmarks_states_its_error():
    near = np.eye(3)
    near[:2, 2] = 9, -7
    he = section()
    overviews = take_overviews(*layers(he, other_stain(he), matrix=near))
    *_, refined = refine(overviews, "rigid", cancel=CancelToken())
    assert refined.accepted, refined.why_not
    places = np.random.default_rng(0).uniform(100, 500, (50, 2))
    off = np.linalg.norm(refined.after.to_dense(places) - places, axis=1)
    assert off.max() < UM
    assert 0.1 * UM < refined.after.error_um < 1.5 * UM


@pytest.mark.data
def test_a_real_pair_of_serial_sections(data):
    """H&E and proSPC of one lung at half its µm/px: others' landmarks judge it."""
    from napari_histodistill.slides import open_slide

    um = 3.48  # 5 % of a scan at 0.174
    stains, tables = (
        sorted((data / "stains").glob(f"*.{end}")) for end in ("jpg", "csv")
    )
    sparse, dense = (open_slide(path) for path in stains)
    here, there = (
        np.loadtxt(path, delimiter=",", skiprows=1)[:, [2, 1]] for path in tables
    )
    layer = dense_layer(
        dense.with_mpp(Mpp(um / 2, um / 2, "half")), name="proSPC", tile_px=8
    )
    best = found(sparse.with_mpp(Mpp(um, um, "true")), layer)
    off = apply(best.registration.matrix, here * um) - there * um / 2
    median = 2 * float(np.median(np.linalg.norm(off, axis=1)))
    assert best.registration.error_um == best.registration.stated_um
    stated = 2 * best.registration.error_um
    print(f"landmarks: {median:.1f} µm; stated: {stated:.1f} µm")
    assert best.accepted, best.reasons
    assert best.scale == pytest.approx(0.5, rel=0.02)
    assert median < 21
    assert 0.5 < stated / median < 2

"""Registration: known transforms come back, liars are found, errors are honest."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from napari_histodistill.distill.layers.registration import (
    CELL_UM,
    LandmarkPairs,
    Registration,
    fit_from_other_side,
    fit_landmarks,
    read_alignment,
    read_registration,
    write_registration,
)
from napari_histodistill.errors import InputError


def matrix(degrees=0.0, scale=1.0, shift=(0.0, 0.0), shear=0.0):
    turn = np.radians(degrees)
    found = np.eye(3)
    found[:2, :2] = scale * np.array(
        [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    )
    found[0, 1] += shear
    found[:2, 2] = shift
    return found


TRUTHS = {
    "rigid": matrix(31, 1, (4000, -900)),
    "similarity": matrix(-118, 1.07, (-2000, 12000)),
    "affine": matrix(8, 0.9, (100, 20000), shear=0.2),
}


def places(count, seed=0):
    return np.random.default_rng(seed).uniform(0, 20000, (count, 2))


def mapped(truth, points):
    return points @ truth[:2, :2].T + truth[:2, 2]


@pytest.mark.parametrize("kind", TRUTHS)
def test_a_known_transform_comes_back(kind):
    sparse = places(6)
    found = fit_landmarks(sparse, mapped(TRUTHS[kind], sparse), kind)
    np.testing.assert_allclose(found.matrix, TRUTHS[kind], atol=1e-6, rtol=1e-9)
    assert found.inliers.all()
    assert found.median_um < 1e-6
    new = places(50, seed=1)
    np.testing.assert_allclose(found.to_sparse(found.to_dense(new)), new, atol=1e-6)


@pytest.mark.parametrize("kind", TRUTHS)
def test_liars_are_left_out(kind):
    sparse = places(12)
    rng = np.random.default_rng(2)
    dense = mapped(TRUTHS[kind], sparse) + rng.normal(scale=4, size=(12, 2))
    dense[[2, 7, 9]] += [[900, -300], [-2000, 0], [50, 600]]
    found = fit_landmarks(sparse, dense, kind)
    assert np.flatnonzero(~found.inliers).tolist() == [2, 7, 9]
    assert found.worst == 7
    assert found.median_um < 12
    assert found.residuals_um[2] > 500


def test_what_a_transform_may_do():
    sparse = places(8)
    dense = mapped(TRUTHS["affine"], sparse)
    medians = [fit_landmarks(sparse, dense, k).median_um for k in TRUTHS]
    assert medians[0] > medians[1] > 100 > medians[2]
    turned = fit_landmarks(sparse, mapped(TRUTHS["similarity"], sparse), "similarity")
    assert turned.scale == pytest.approx(1.07)
    # y points down: a matrix that turns (y, x) by -118° turns the picture the same way.
    assert abs(turned.degrees) == pytest.approx(118)


def test_a_residual_is_that_of_a_fit_without_the_landmark():
    sparse = places(4)
    dense = sparse.copy()
    dense[3] += [30.0, 0.0]
    found = fit_landmarks(sparse, dense, "affine")
    # Three landmarks decide an affine: without the fourth it is the identity.
    assert found.residuals_um[3] == pytest.approx(30)
    assert np.isfinite(found.residuals_um).all()


def test_too_few_to_judge():
    sparse = places(2)
    found = fit_landmarks(sparse, sparse + 5, "similarity")
    assert np.isnan(found.median_um)
    assert found.worst is None
    with pytest.raises(InputError, match="place 3 or more landmarks"):
        found.confidence(100)


def test_confidence_is_the_shared_part_of_a_tile():
    found = Registration(
        "rigid", np.eye(3), np.array([5.0, 10, 15]), np.ones(3, np.bool_)
    )
    assert found.median_um == 10
    assert found.confidence(100) == pytest.approx(0.81)
    assert found.confidence(5) == 0
    assert found.confidence(found.smallest_tile_um(0.64)) == pytest.approx(0.64)
    assert not found.cells_meet
    near = Registration("rigid", np.eye(3), np.array([CELL_UM - 1]), np.ones(1, bool))
    assert near.cells_meet


def test_a_stated_error_counts_where_landmarks_cannot_judge():
    none = Registration("rigid", np.eye(3), np.empty(0), np.ones(0, np.bool_), 10.0)
    assert np.isnan(none.median_um)
    assert none.error_um == 10
    assert none.confidence(100) == pytest.approx(0.81)
    assert none.confidence(none.smallest_tile_um(0.64)) == pytest.approx(0.64)
    assert not none.cells_meet
    judged = Registration("rigid", np.eye(3), np.array([4.0]), np.ones(1, bool), 10.0)
    assert judged.error_um == 4
    assert judged.confidence(100) == pytest.approx(0.96**2)
    few = fit_landmarks(places(2), places(2) + 5, "similarity")
    assert np.isnan(few.error_um)
    assert replace(few, stated_um=2.0).error_um == 2


def test_a_stated_error_survives_a_file(tmp_path):
    path = tmp_path / "r.json"
    found = Registration("rigid", np.eye(3), np.empty(0), np.ones(0, np.bool_), 10.0)
    write_registration(path, found)
    assert read_registration(path).stated_um == 10
    write_registration(path, replace(found, stated_um=None))
    assert "stated_um" not in json.loads(path.read_text()), "as before"
    assert read_registration(path).stated_um is None


@pytest.mark.parametrize(
    ("sparse", "dense", "kind", "words"),
    [
        (places(3), places(4), "rigid", "3 landmarks on the H&E and 4 on the partner"),
        (places(1), places(1), "rigid", "1 landmarks are too few"),
        (places(2), places(2), "affine", "affine needs 3"),
        (np.outer(np.arange(5), [1, 2.0]), places(5), "affine", "one line"),
        (np.ones((3, 2)), places(3), "similarity", "one line or one point"),
        (np.full((3, 2), np.nan), places(3), "rigid", "finite"),
        (places(3), places(3), "elastic", "not 'elastic'"),
    ],
)
def test_landmarks_that_decide_nothing(sparse, dense, kind, words):
    with pytest.raises(InputError, match=words):
        fit_landmarks(sparse, dense, kind)


def test_a_registration_survives_a_file(tmp_path):
    sparse = places(5)
    found = fit_landmarks(sparse, mapped(TRUTHS["affine"], sparse), "affine")
    write_registration(tmp_path / "r.json", found)
    again = read_registration(tmp_path / "r.json")
    assert again.kind == "affine"
    np.testing.assert_array_equal(again.matrix, found.matrix)
    np.testing.assert_array_equal(again.residuals_um, found.residuals_um)
    few = fit_landmarks(sparse[:2], sparse[:2] + 1, "rigid")
    write_registration(tmp_path / "r.json", few)
    assert np.isnan(read_registration(tmp_path / "r.json").residuals_um).all()
    assert [f.name for f in tmp_path.iterdir()] == ["r.json"]
    with pytest.raises(InputError, match="cannot be written"):
        write_registration(tmp_path / "none" / "r.json", found)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": "itk"}, "not a registration"),
        ({"kind": "elastic"}, "not a registration"),
        ({"matrix": [[1, 0], [0, 1]]}, "not a registration"),
        ({"matrix": [[0, 0, 0], [0, 0, 0], [0, 0, 1]]}, "not a registration"),
        ({"inliers": [True]}, "not a registration"),
        ({"residuals_um": "few"}, "not a registration"),
        ({"stated_um": -1}, "its stated error is -1"),
        ({"stated_um": float("nan")}, "not a registration"),
        ({"stated_um": [1]}, "not a registration"),
    ],
)
def test_files_that_are_none(tmp_path, change, words):
    sparse = places(5)
    write_registration(tmp_path / "r.json", fit_landmarks(sparse, sparse + 1))
    content = json.loads((tmp_path / "r.json").read_text()) | change
    (tmp_path / "r.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=words):
        read_registration(tmp_path / "r.json")
    with pytest.raises(InputError, match="not a registration"):
        read_registration(tmp_path / "none.json")


def test_real_serial_sections(data):
    """Half of a pair's landmarks fit it; the others, unseen, say how well."""
    folder = data / "stains"
    sparse, dense = (
        np.loadtxt(path, delimiter=",", skiprows=1)[:, [2, 1]]
        for path in sorted(folder.glob("*.csv"))
    )
    fitted = np.arange(len(sparse)) % 2 == 0
    before = np.median(np.linalg.norm(sparse[~fitted] - dense[~fitted], axis=1))
    found = fit_landmarks(sparse[fitted], dense[fitted], "affine")
    away = np.linalg.norm(found.to_dense(sparse[~fitted]) - dense[~fitted], axis=1)
    print(f"median landmark error {before:.1f} px before, {np.median(away):.1f} after")
    assert np.median(away) < 0.15 * before
    assert np.median(away) < 2 * found.median_um


@pytest.mark.parametrize("kind", ["rigid", "similarity"])
def test_a_mirrored_partner_is_seen_by_its_landmarks(kind):
    """No rigid transform can mirror: it left a thousand µm, without a hint."""
    rng = np.random.default_rng(3)
    sparse = places(8)
    there = mapped(TRUTHS[kind], sparse) * (1, -1)
    dense = there + rng.normal(scale=4, size=there.shape)
    known = fit_landmarks(sparse, dense, kind)
    assert np.nanmedian(known.residuals_um) > 1000
    found = fit_from_other_side(sparse, dense, known)
    assert found is not None
    assert found.mirrored
    assert not known.mirrored
    assert np.nanmedian(found.residuals_um) < 20
    np.testing.assert_allclose(found.to_dense(sparse), there, atol=20)
    assert found.scale == pytest.approx(1.0 if kind == "rigid" else 1.07, abs=0.01)
    # And back: of two sides, each says so of the other.
    back = fit_from_other_side(
        sparse, dense * (1, -1), mirrored_of(sparse, dense, kind)
    )
    assert back is not None
    assert not back.mirrored


def mirrored_of(sparse, dense, kind):
    return fit_landmarks(sparse, dense * (1, -1), kind, mirrored=True)


def test_landmarks_on_the_right_side_suggest_nothing():
    rng = np.random.default_rng(4)
    for count in (3, 4, 12):
        sparse = places(count)
        clicks = mapped(TRUTHS["similarity"], sparse)
        clicks = clicks + rng.normal(scale=60, size=clicks.shape)
        known = fit_landmarks(sparse, clicks, "similarity")
        assert fit_from_other_side(sparse, clicks, known) is None
    # On a line, both sides fit alike; an affine transform can mirror by itself.
    line = np.stack([np.linspace(0, 9000, 6), np.linspace(50, 4000, 6)], axis=1)
    near = line + rng.normal(scale=5, size=line.shape)
    assert fit_from_other_side(line, near, fit_landmarks(line, near, "rigid")) is None
    bent = mapped(TRUTHS["affine"], places(9)) * (1, -1)
    affine = fit_landmarks(places(9), bent, "affine")
    assert affine.median_um < 1e-6
    assert fit_from_other_side(places(9), bent, affine) is None


def test_a_mirrored_registration_is_written_and_read(tmp_path):
    sparse = places(6)
    found = fit_landmarks(sparse, sparse * (1, -1), "rigid", mirrored=True)
    np.testing.assert_allclose(found.matrix, np.diag([1, -1, 1]), atol=1e-6)
    assert found.degrees == pytest.approx(0, abs=1e-6)
    write_registration(tmp_path / "a.json", found)
    assert read_registration(tmp_path / "a.json").mirrored


def test_both_landmark_sets_are_in_the_file_in_um_and_pixels(tmp_path):
    sparse = places(5)
    dense = mapped(TRUTHS["rigid"], sparse)
    marks = LandmarkPairs.measured(sparse, dense, (0.5, 0.25), (1.0, 1.0))
    write_registration(
        tmp_path / "r.json", fit_landmarks(sparse, dense, "rigid"), marks
    )
    content = json.loads((tmp_path / "r.json").read_text())["landmarks"]
    assert content["names"] == ["1", "2", "3", "4", "5"]
    assert content["sparse"]["name"] == "H&E"
    assert content["dense"]["name"] == "partner"
    np.testing.assert_allclose(content["sparse"]["px"], sparse / (0.5, 0.25), atol=1e-3)
    found, again = read_alignment(tmp_path / "r.json")
    assert len(again) == 5
    np.testing.assert_allclose(again.sparse_um, sparse, atol=1e-3)
    np.testing.assert_allclose(again.dense_um, dense, atol=1e-3)
    np.testing.assert_allclose(again.dense_px, dense, atol=1e-3)
    np.testing.assert_allclose(found.matrix, TRUTHS["rigid"], atol=1e-6)
    np.testing.assert_allclose(
        read_registration(tmp_path / "r.json").matrix, found.matrix
    )


def test_a_file_from_before_has_no_landmarks_and_is_read(tmp_path):
    sparse = places(4)
    write_registration(tmp_path / "r.json", fit_landmarks(sparse, sparse + 1))
    content = json.loads((tmp_path / "r.json").read_text())
    assert set(content) == {
        "format", "version", "unit", "kind", "matrix", "residuals_um", "inliers"
    }  # fmt: skip
    assert read_alignment(tmp_path / "r.json")[1] is None


@pytest.mark.parametrize(
    "damage",
    [
        {"sparse": {}},
        {"sparse": {"um": [[1, 2]], "px": [[1, 2], [3, 4]]}},
        {"sparse": {"um": [[1, "x"]], "px": [[1, 2]]}},
        {"sparse": {"um": [[1, float("nan")]], "px": [[1, 2]]}},
        {"dense": 5},
    ],
)
def test_damaged_landmarks_are_refused(tmp_path, damage):
    sparse = places(1)
    marks = LandmarkPairs.measured(sparse, sparse, (1, 1), (1, 1))
    path = tmp_path / "r.json"
    write_registration(path, fit_landmarks(places(3), places(3)), marks)
    content = json.loads(path.read_text())
    content["landmarks"] |= damage
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"r\.json is not a registration"):
        read_alignment(path)

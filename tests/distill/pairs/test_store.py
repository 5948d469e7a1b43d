"""Stored pairs: what was planned is what a training reads, or nothing is there."""

from __future__ import annotations

import json

import numpy as np
import pytest

from napari_histodistill.distill.layers.kinds import Unlabelled
from napari_histodistill.distill.layers.partners import Spots, dense_layer
from napari_histodistill.distill.pairs.loading import load_pairs
from napari_histodistill.distill.pairs.plan import Sampling, plan_pairs
from napari_histodistill.distill.pairs.store import is_pairs, read_pairs, write_pairs
from napari_histodistill.distill.recipes.config import DistillConfig
from napari_histodistill.errors import (
    Cancelled,
    SlideError,
    StoreError,
    TileFolderError,
)
from napari_histodistill.geometry import Mpp
from napari_histodistill.running import CancelToken
from napari_histodistill.slides import slide_from_arrays
from napari_histodistill.slides.tissue.tissue import TissueMask

MPP = Mpp(0.5, 0.5, "test")


def slide_of(seed, shape=(384, 384, 3), dtype=np.uint8, **rest):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(1, np.iinfo(dtype).max, shape, dtype=dtype)
    return slide_from_arrays(pixels, name=f"slide {seed}", mpp=MPP, **rest)


@pytest.fixture
def plan():
    sparse = slide_of(0)
    image = dense_layer(slide_of(1), name="ihc", tile_px=48, confidence=0.75)
    channels = dense_layer(
        slide_of(2, (384, 384, 2), np.uint16, channels=("DAPI", "CD3")),
        name="mif",
        tile_px=32,
    )
    labels = slide_from_arrays(
        np.arange(384 * 384).reshape(384, 384) // 4000 % 5, name="l", mpp=MPP
    )
    mask = dense_layer(
        labels,
        name="glands",
        tile_px=32,
        kind="mask",
        unlabelled=Unlabelled.BACKGROUND,
    )
    whole = TissueMask(np.ones((4, 4), bool), sparse.shape)
    return plan_pairs(
        sparse, [image, channels, mask], Sampling(mpp=0.5, tile_px=32), tissue=whole
    )


def recipe(*dense, **changes):
    plain = {
        "arm": "privileged" if dense else "unprivileged",
        "name": "small",
        "title": "Small",
        "licence": "BSD-3-Clause",
        "mpp": 0.5,
        "source_px": 32,
        "mpp_source": "stated",
        "data": {
            "folder": "pairs.zarr",
            "description": "noise",
            "licence": "CC0",
            "attribution": "nobody",
            "validation_share": 0.2,
        },
        "sparse": {
            "tile_px": 32,
            "input_px": 32,
            "encoder": {"backbone": "test_resnet"},
        },
        "dense": [
            {"tile_px": 32, "input_px": 32, "encoder": {"backbone": "test_resnet"}} | d
            for d in dense
        ],
        "objective": {"projector": [16, 16]},
        "schedule": {"steps": 2, "batch": 8, "lr": 1e-3},
    }
    return DistillConfig.model_validate(plain | changes)


def test_what_was_planned_comes_back(plan, tmp_path):
    path = tmp_path / "pairs.zarr"
    counts = list(write_pairs(path, plan))
    assert counts[-1] == len(plan) == 144
    assert counts == sorted(counts)
    found = read_pairs(path)
    assert is_pairs(path)
    assert [(p.name, p.kind) for p in found.partners] == [
        ("ihc", "image"),
        ("mif", "channels"),
        ("glands", "mask"),
    ]
    assert found.partners[1].names == ("DAPI", "CD3")
    assert (found.mpp, found.tile_px) == (0.5, 32)
    np.testing.assert_array_equal(found.regions, plan.regions)
    np.testing.assert_array_equal(found.confidence, plan.confidence)
    np.testing.assert_array_equal(found.position_um, plan.centres_um)
    sparse = found.sparse()
    for pair in (0, 63, 64, 143):
        np.testing.assert_array_equal(sparse[pair], plan.sparse_tile(pair))
        for k, partner in enumerate(found.partners):
            stored = found.partner(partner.name, partner.kind)[pair]
            np.testing.assert_array_equal(stored, plan.partner_tile(pair, k))


def test_a_recipe_reads_stored_pairs(plan, tmp_path):
    path = tmp_path / "pairs.zarr"
    list(write_pairs(path, plan))
    config = recipe(
        {"column": "ihc", "tile_px": 24, "input_px": 24},
        {"column": "mif", "kind": "channels", "tile_px": 16, "input_px": 16},
        {"column": "glands", "kind": "mask"},
        {},
    )
    split = load_pairs(config, path)
    assert split.validation is not None
    train, kept = split.train, split.validation
    assert len(train) + len(kept) == len(plan)
    assert not set(train.cases) & set(kept.cases)
    assert train.sparse.shape[1:] == (32, 32, 3)
    shapes = [p.values.shape[1:] for p in train.partners]
    assert shapes == [(24, 24, 3), (16, 16, 2), (32, 32, 4), (32, 32, 3)]
    assert set(np.unique(train.partners[2].values)) == {0, 255}
    assert train.confidence == pytest.approx(0.75)
    assert train.labels is None


def test_a_recipe_for_tiles_of_another_size_is_refused(plan, tmp_path):
    path = tmp_path / "pairs.zarr"
    list(write_pairs(path, plan))
    for change in ({"mpp": 0.25}, {"source_px": 224}):
        config = recipe({"column": "ihc"}).model_copy(update=change)
        with pytest.raises(StoreError, match=r"are 32 px of 0.5 µm, the recipe says"):
            load_pairs(config, path)


def test_pairs_from_before_there_were_sections_are_of_none(plan, tmp_path):
    path = tmp_path / "pairs.zarr"
    list(write_pairs(path, plan))
    assert set(read_pairs(path).sections) == {plan.sparse.name}
    file = path / "zarr.json"
    meta = json.loads(file.read_text())
    for name in ("sections", "region_section"):
        del meta["attributes"]["histodistill"][name]
    file.write_text(json.dumps(meta))
    assert set(read_pairs(path).sections) == {""}
    data = recipe().data.model_dump() | {
        "validation_share": 0.0,
        "validate_on": [plan.sparse.name],
    }
    with pytest.raises(TileFolderError, match="only pairs of none"):
        load_pairs(recipe(data=data), path)


def test_spots_come_back_as_tables(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(40, 7)).astype(np.float32)
    spots = Spots("visium", rng.uniform(30, 160, (40, 2)), values, tuple("abcdefg"))
    sparse = slide_of(3)
    whole = TissueMask(np.ones((4, 4), bool), sparse.shape)
    plan = plan_pairs(sparse, [spots], Sampling(mpp=0.5, tile_px=32), tissue=whole)
    list(write_pairs(tmp_path / "p.zarr", plan))
    found = read_pairs(tmp_path / "p.zarr")
    assert found.partners[0].names == tuple("abcdefg")
    np.testing.assert_array_equal(
        found.partner("visium", "expression"), values[plan.spot]
    )
    mlp = {"backbone": "mlp"}
    config = recipe(
        {"column": "visium", "kind": "expression", "encoder": mlp},
        data=recipe().data.model_dump() | {"validation_share": 0.0},
    )
    assert load_pairs(config, tmp_path / "p.zarr").train.partners[0].values.shape == (
        len(plan),
        7,
    )


@pytest.mark.parametrize(
    ("dense", "changes", "match"),
    [
        (
            {"column": "cd8"},
            {},
            "dense.column names 'cd8'; the pairs have 'ihc', 'mif'",
        ),
        ({"column": "mif"}, {}, "'mif' is of kind 'channels', dense.kind says 'image'"),
        (
            {},
            {"classes": [{"name": "a", "color": "#ffffff"}]},
            "classes, data.labels_from: pairs sampled",
        ),
    ],
)
def test_what_pairs_do_not_have_is_named(plan, tmp_path, dense, changes, match):
    list(write_pairs(tmp_path / "p.zarr", plan))
    with pytest.raises(StoreError, match=match):
        load_pairs(recipe(dense, **changes), tmp_path / "p.zarr")


def test_stopping_leaves_nothing_behind(plan, tmp_path):
    token = CancelToken()
    writing = write_pairs(tmp_path / "p.zarr", plan, cancel=token)
    next(writing)
    token.cancel()
    with pytest.raises(Cancelled):
        list(writing)
    assert list(tmp_path.iterdir()) == []


def test_a_slide_that_fails_leaves_nothing_behind(plan, tmp_path):
    plan.sparse.close()
    with pytest.raises(SlideError, match="was closed"):
        list(write_pairs(tmp_path / "p.zarr", plan))
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_over(plan, tmp_path):
    (tmp_path / "p.zarr").mkdir()
    with pytest.raises(StoreError, match="this exists already"):
        list(write_pairs(tmp_path / "p.zarr", plan))


@pytest.mark.parametrize(
    "damage", ["attributes", "sections", "array", "chunk", "version"]
)
def test_damage_is_called_damage(plan, tmp_path, damage):
    path = tmp_path / "p.zarr"
    list(write_pairs(path, plan))
    meta = json.loads((path / "zarr.json").read_text())
    if damage == "attributes":
        del meta["attributes"]["histodistill"]["partners"]
    elif damage == "sections":
        meta["attributes"]["histodistill"]["region_section"] = [7]
    elif damage == "version":
        meta["attributes"]["histodistill"]["format_version"] = 99
    elif damage == "array":
        (path / "region" / "zarr.json").unlink()
    else:
        chunk = next(f for f in (path / "sparse" / "c").rglob("*") if f.is_file())
        chunk.write_bytes(chunk.read_bytes()[:-9])
    (path / "zarr.json").write_text(json.dumps(meta))
    match = "newer version" if damage == "version" else "are damaged"
    with pytest.raises(StoreError, match=match):
        read_pairs(path).sparse()


def test_there_are_no_pairs(tmp_path):
    with pytest.raises(StoreError, match="no stored pairs"):
        read_pairs(tmp_path)


def test_a_student_comes_out_of_stored_pairs(plan, tmp_path):
    from napari_histodistill.distill.runs.folder import STUDENT, start_run
    from napari_histodistill.distill.runs.run import train
    from napari_histodistill.students import load_student

    list(write_pairs(tmp_path / "p.zarr", plan))
    config = recipe({"column": "mif", "kind": "channels"})
    run = start_run(config, tmp_path / "run", tmp_path / "p.zarr")
    reports = list(train(run, device="cpu", threads=1))
    assert reports[-1].kind == "finished"
    student = load_student(run / STUDENT, device="cpu")
    assert student.spec.training.arm == "privileged"
    assert student.embed(plan.sparse_tile(0)[None]).shape == (
        1,
        student.spec.embedding_dim,
    )

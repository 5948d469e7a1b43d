"""Pairs: what is read, how it is split, what a control may know."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from napari_histodistill.distill.pairs.loading import (
    PartnerValues,
    controlled,
    load_pairs,
)
from napari_histodistill.distill.pairs.tilefolder import read_tile_folder
from napari_histodistill.distill.scoring.held_out import LabelledTiles, _labelled
from napari_histodistill.distill.training.views import Views
from napari_histodistill.errors import TileFolderError
from napari_histodistill.running import CancelToken
from tests.distill.small_runs import TINY, small_config, write_textures

CASES = 8


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    return write_textures(tmp_path_factory.mktemp("data") / "tiles", cases=CASES)


def dense(**changes):
    return {"tile_px": 64, "input_px": 32, "encoder": TINY} | changes


def data(**changes):
    said = {"folder": "t", "description": "d", "licence": "l", "attribution": "a"}
    return said | changes


def rewrite(folder, row, **values):
    """Change a row of a manifest (the header is row 1); a new column is filled up."""
    path = folder / "manifest.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for name in values:
        for one in rows:
            one.setdefault(name, "")
    rows[row - 2].update(values)
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def test_pictures_come_at_the_sizes_of_the_recipe(tiles):
    config = small_config(dense=[dense(), dense(column="mask", kind="mask")])
    pairs = load_pairs(config, tiles).train
    assert pairs.sparse.shape == (36, 16, 16, 3)
    assert [p.values.shape for p in pairs.partners] == [
        (36, 64, 64, 3),
        (36, 64, 64, 1),
    ]
    assert all(p.values.dtype == np.uint8 for p in pairs.partners)
    assert (pairs.confidence == 1).all()


def test_a_mask_is_never_blended(tiles):
    config = small_config(dense=[dense(tile_px=24, column="mask", kind="mask")])
    mask = load_pairs(config, tiles).train.partners[0].values
    assert set(np.unique(mask)) == {0, 255}


def test_what_nobody_labelled_is_unknown_where_the_recipe_says_so(tmp_path):
    folder = write_textures(tmp_path / "tiles")
    blank = Image.fromarray(np.zeros((64, 64), np.uint8))
    blank.save(folder / "0-0-0-mask.png")

    def masks(**said):
        config = small_config(dense=[dense(column="mask", kind="mask", **said)])
        split = load_pairs(config, folder)
        sides = [p.partners[0].values for p in (split.train, split.validation)]
        return np.concatenate(sides)

    known, unknown = masks(), masks(unlabelled="unknown")
    assert set(np.unique(known)) == {0, 255}
    # All that is labelled is of one class, and a tile without any label is left out.
    assert len(unknown) == len(known) - 1
    assert set(np.unique(unknown)) == {255}


def test_a_partner_column_may_hold_colour_pictures(tiles):
    config = small_config(dense=[dense(column="mask", kind="image")])
    pictures = load_pairs(config, tiles).train.partners[0].values
    assert pictures.shape == (36, 64, 64, 3)


def test_no_case_is_on_both_sides(tiles):
    for seed in range(6):
        split = load_pairs(small_config(seed=seed), tiles)
        assert split.validation is not None
        train, kept = set(split.train.cases), set(split.validation.cases)
        assert not train & kept
        assert len(train | kept) == CASES
        assert set(split.validation.labels.tolist()) == {0, 1}


def test_the_split_belongs_to_the_seed(tiles):
    def kept(seed):
        split = load_pairs(small_config(seed=seed), tiles)
        return tuple(sorted(set(split.validation.cases)))

    assert kept(3) == kept(3)
    assert len({kept(seed) for seed in range(8)}) > 1


def test_what_is_left_out_is_not_even_opened(tmp_path):
    folder = write_textures(tmp_path / "tiles")
    for file in folder.glob("1-*.png"):  # case 1 is in fold 2
        file.write_bytes(b"no picture")
    config = small_config(data=data(leave_out=["2"]), dense=[dense(column="mask")])
    pairs = load_pairs(config, folder).train
    assert set(pairs.cases) == {f"case{k}" for k in range(CASES) if k % 4 != 1}


def test_a_shuffled_partner_is_another_cases_and_every_one_is_dealt(tiles):
    own = load_pairs(small_config(), tiles)
    dealt = load_pairs(small_config(dense=[dense(partner="shuffled")]), tiles)
    for before, after in ((own.train, dealt.train), (own.validation, dealt.validation)):
        home = {
            p.tobytes(): case
            for p, case in zip(before.partners[0].values, before.cases, strict=True)
        }
        names = [p.tobytes() for p in after.partners[0].values]
        assert sorted(names) == sorted(home)
        assert all(home[n] != c for n, c in zip(names, after.cases, strict=True))
        np.testing.assert_array_equal(before.sparse, after.sparse)
        np.testing.assert_array_equal(before.labels, after.labels)


def test_a_share_of_the_labels_is_the_one_that_probes_get(tiles):
    said = data(leave_out=["1"], labelled=0.2)
    config = small_config("supervised", data=said, seed=3)
    train = load_pairs(config, tiles).train
    folder = read_tile_folder(tiles)
    judged = LabelledTiles(
        folder.classes(["fine", "coarse"]), folder.case_ids(), folder.folds()
    )
    rows = _labelled(judged, judged.folds != "1", 0.2, 3)
    assert len(rows) == 8 == len(train)
    assert np.bincount(train.labels).tolist() == [4, 4]
    expected = [folder.read(folder.tiles[row], 16)[0] for row in rows]
    np.testing.assert_array_equal(train.sparse, expected)
    for arm in ("unprivileged", "privileged"):
        with pytest.raises(ValidationError, match="labelled leaves out labels"):
            small_config(arm, data=said)


NAMED = r"^\d+-(\d)-(\d)"
"""Row and column in the names of :func:`write_textures`: class and tile."""


def test_partners_are_dealt_within_a_case_and_near_by(tiles):
    def sides(partner, **said):
        config = small_config(
            data=data(validation_share=0.25, positions=NAMED),
            dense=[dense(partner=partner, **said)],
        )
        split = load_pairs(config, tiles)
        return split.train, split.validation

    for partner, said in (("shuffled_within_case", {}), ("shuffled_nearby", {})):
        for own, dealt in zip(sides("own"), sides(partner, **said), strict=True):
            rows = {p.tobytes(): k for k, p in enumerate(own.partners[0].values)}
            drawn = np.array([rows[p.tobytes()] for p in dealt.partners[0].values])
            assert sorted(drawn) == list(range(len(own)))
            assert (drawn != np.arange(len(own))).all()
            assert (own.cases[drawn] == own.cases).all()
            far = np.linalg.norm(own.positions[drawn] - own.positions, axis=1)
            assert far.max() <= (2 if partner == "shuffled_nearby" else 3)


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        (r"(\d)-(\d", "positions is no regular expression"),
        (r"(\d)-\d", "positions has 1 groups: it needs two, row and column"),
    ],
)
def test_a_pattern_without_two_groups_is_refused(pattern, said):
    with pytest.raises(ValidationError, match=said):
        small_config(data=data(positions=pattern))


@pytest.mark.parametrize("pattern", [r"(\d)x(\d)", r"(\d)-(\D)", r"(\d+)(x)?"])
def test_a_name_without_a_position_is_named(tiles, pattern):
    config = small_config(data=data(positions=pattern))
    with pytest.raises(TileFolderError, match=r"row 2: data.positions .* in 0-0-0.png"):
        load_pairs(config, tiles)


def test_dealing_depends_on_the_seed(tiles):
    # Another seed would also split otherwise: deal the same pairs twice.
    pairs = load_pairs(small_config(), tiles).train
    config = small_config(dense=[dense(partner="shuffled")])
    first = controlled(pairs, config)
    other = controlled(pairs, config.model_copy(update={"seed": 1}))
    assert first.digest() == controlled(pairs, config).digest()
    assert first.digest() != other.digest()


def test_a_case_too_large_to_deal_is_refused(tiles):
    pairs = load_pairs(small_config(), tiles).train
    rows = np.flatnonzero(pairs.cases == pairs.cases[0])
    lopsided = pairs.take(
        np.concatenate([rows, np.flatnonzero(pairs.cases != pairs.cases[0])[:3]])
    )
    with pytest.raises(TileFolderError, match="more than half of the pairs"):
        controlled(lopsided, small_config(dense=[dense(partner="shuffled")]))


def test_a_blank_partner_is_the_training_mean_on_both_sides(tiles):
    own = load_pairs(small_config(), tiles).train.partners[0].values
    blank = load_pairs(small_config(dense=[dense(partner="blank")]), tiles)
    mean = np.rint(own.mean(axis=0)).astype(np.uint8)
    for side in (blank.train, blank.validation):
        assert (side.partners[0].values == mean).all()


def test_a_blank_mask_is_the_commonest_category(tiles):
    mask = dense(column="mask", kind="mask", partner="blank")
    values = load_pairs(small_config(dense=[mask]), tiles).train.partners[0].values
    assert len(np.unique(values)) == 1


def numbered_masks(tmp_path, draw):
    """Write tiles whose masks hold the numbers that ``draw(fold)`` gives."""
    folder = write_textures(tmp_path / "numbered", cases=CASES)
    for tile in read_tile_folder(folder).tiles:
        numbers = np.resize(np.asarray(draw(tile.fold), np.uint8), (64, 64))
        Image.fromarray(numbers).save(folder / tile.partners["mask"])
    return folder


def test_every_category_of_a_mask_has_a_channel(tmp_path):
    # Category 3 lies in fold 1 only: both sides of the split have its channel.
    folder = numbered_masks(tmp_path, lambda f: [0, 1, 3] if f == "1" else [0, 1])
    config = small_config(
        data=data(validate_on=["1"]), dense=[dense(column="mask", kind="mask")]
    )
    split = load_pairs(config, folder)
    train, kept = (side.partners[0].values for side in (split.train, split.validation))
    assert train.shape[1:] == kept.shape[1:] == (64, 64, 2)
    assert set(np.unique(train[..., 0])) == set(np.unique(kept[..., 1])) == {0, 255}
    assert not train[..., 1].any()
    assert not (kept[..., 0].astype(bool) & kept[..., 1].astype(bool)).any()


def test_views_of_categories_hold_shares_of_them_and_nothing_between(tmp_path):
    folder = numbered_masks(tmp_path, lambda _fold: [1] * 640 + [3] * 640)
    config = small_config(dense=[dense(column="mask", kind="mask", input_px=32)])
    pairs = load_pairs(config, folder).train
    views = Views(
        config, pairs, home=tmp_path, device="cpu", cancel=CancelToken()
    ).draw(np.arange(8), 1)
    one, three = views.partners[0].unbind(1)
    assert torch.allclose(one + three, torch.ones_like(one), atol=1e-5)
    assert one.max() > 0.99 < three.max()


def test_a_class_of_one_case_is_learned_rather_than_judged(tmp_path):
    folder = write_textures(tmp_path / "tiles", cases=CASES)
    first = read_tile_folder(folder).tiles[0]
    for tile in read_tile_folder(folder).tiles:
        if tile.case_id == first.case_id:
            rewrite(folder, tile.row, label="rare")
    names = ("fine", "coarse", "rare")
    classes = [{"name": n, "color": "#000000"} for n in names]
    for seed in range(6):
        split = load_pairs(small_config(classes=classes, seed=seed), folder)
        assert 2 in split.train.labels
        assert 2 not in split.validation.labels
        assert len(split.validation) > 0


def test_tiles_of_another_size_than_the_recipe_says_are_refused(tiles):
    with pytest.raises(TileFolderError, match=r"is 64 px wide, .*source_px says 224"):
        load_pairs(small_config(source_px=224), tiles)


def test_a_picture_that_is_called_a_mask_is_refused(tmp_path):
    folder = numbered_masks(tmp_path, lambda _fold: range(50))
    config = small_config(dense=[dense(column="mask", kind="mask")])
    with pytest.raises(TileFolderError, match="holds 49 different numbers above 0"):
        load_pairs(config, folder)


def test_the_digest_sees_every_part(tiles):
    pairs = load_pairs(small_config(), tiles).train
    changed = [pairs]
    for field in ("sparse", "labels", "cases", "confidence"):
        values = getattr(pairs, field).copy()
        values[0] = "other" if field == "cases" else values[0] + 1
        changed.append(replaced(pairs, **{field: values}))
    partner = PartnerValues("image", pairs.partners[0].values + np.uint8(1))
    changed.append(replaced(pairs, partners=(partner,)))
    changed.append(replaced(pairs, labels=None))
    assert len({c.digest() for c in changed}) == len(changed)
    assert pairs.digest() == load_pairs(small_config(), tiles).train.digest()


def replaced(pairs, **changes):
    fields = ("sparse", "partners", "labels", "cases", "confidence")
    return type(pairs)(**{f: getattr(pairs, f) for f in fields} | changes)


def test_expression_comes_as_numbers(tmp_path):
    folder = write_textures(tmp_path / "tiles")
    write_expression(folder, genes=5)
    config = small_config(dense=[expression()])
    pairs = load_pairs(config, folder).train
    assert pairs.partners[0].kind == "expression"
    assert pairs.partners[0].values.shape == (36, 5)
    assert pairs.partners[0].values.dtype == np.float32


def expression():
    return {"kind": "expression", "column": "genes", "encoder": {"backbone": "mlp"}}


def write_expression(folder, genes):
    path = folder / "manifest.csv"
    lines = path.read_text().splitlines()
    for k, _ in enumerate(lines[1:]):
        np.save(folder / f"genes-{k}.npy", np.arange(genes, dtype=np.float64) + k)
    rows = [lines[0] + ",genes"]
    rows += [f"{line},genes-{k}.npy" for k, line in enumerate(lines[1:])]
    path.write_text("\n".join(rows) + "\n")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: np.save(f / "genes-3.npy", np.zeros(4)), "row 5: 'genes' has 4"),
        (lambda f: np.save(f / "genes-3.npy", np.zeros((2, 2))), "one finite number"),
        (lambda f: np.save(f / "genes-3.npy", np.full(5, np.nan)), "one finite number"),
        (lambda f: (f / "genes-3.npy").write_text("x"), "cannot be read as numbers"),
        (lambda f: (f / "genes-3.npy").unlink(), "row 5: there is no file"),
        (lambda f: rewrite(f, 5, genes=""), "row 5: the column 'genes' is empty"),
        (lambda f: rewrite(f, 5, label="odd"), "row 5 has the label 'odd'"),
        (lambda f: rewrite(f, 5, label=""), "row 5 has no label"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path, spoil, said):
    folder = write_textures(tmp_path / "tiles")
    write_expression(folder, genes=5)
    spoil(folder)
    with pytest.raises(TileFolderError, match=said):
        load_pairs(small_config(dense=[expression()]), folder)


def test_whole_folds_are_kept_aside(tiles):
    config = small_config(data=data(leave_out=["1"], validate_on=["2", "4"]))
    split = load_pairs(config, tiles)
    folder = read_tile_folder(tiles)
    cases = {
        fold: {t.case_id for t in folder.tiles if t.fold == fold} for fold in "1234"
    }
    assert set(split.train.cases) == cases["3"]
    assert set(split.validation.cases) == cases["2"] | cases["4"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (data(validate_on=["1"], validation_share=0.2), "validation_share must be 0"),
        (data(validate_on=["1"], leave_out=["1"]), "'1' is left out"),
    ],
)
def test_what_is_kept_aside_is_said_once(changes, said):
    with pytest.raises(ValidationError, match=said):
        small_config(data=changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": data(leave_out=["9"])}, "no fold '9', only 1, 2, 3, 4"),
        ({"data": data(leave_out=["1", "2", "3", "4"])}, "no tile of .* is left"),
        ({"data": data(validation_share=0.01)}, "8 cases cannot be split"),
        ({"data": data(validate_on=["9"])}, "no fold or section '9', only 1, 2, 3, 4"),
        ({"data": data(validate_on=["1", "2", "3", "4"])}, "nothing of .* is left"),
        ({"dense": [dense(column="her2")]}, "names 'her2', the manifest has mask"),
    ],
)
def test_a_recipe_that_does_not_fit_the_folder_is_refused(tiles, changes, said):
    with pytest.raises(TileFolderError, match=said):
        load_pairs(small_config(**changes), tiles)


def test_a_mask_that_is_no_picture_is_named(tmp_path):
    folder = write_textures(tmp_path / "tiles")
    Image.new("L", (64, 32)).save(folder / "0-0-1-mask.png")
    config = small_config(dense=[dense(column="mask", kind="mask")])
    with pytest.raises(
        TileFolderError, match=r"row 3: .*0-0-1-mask\.png is 32 × 64 px"
    ):
        load_pairs(config, folder)

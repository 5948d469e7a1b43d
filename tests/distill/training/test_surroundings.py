"""Tiles among other tissue: what lies where, and that training for it works."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from napari_histodistill.distill.recipes.config import SurroundingsConfig
from napari_histodistill.distill.runs.folder import start_run
from napari_histodistill.distill.runs.run import train
from napari_histodistill.distill.training.surroundings import (
    surround,
    surroundings_loss,
)
from napari_histodistill.errors import InputError
from napari_histodistill.students import load_student
from napari_histodistill.students.token_pooling import pool_tokens
from tests.distill.small_runs import TINY, small_config, write_textures

TILE, MARGIN, STRIDE = 64, 32, 32
NARROW = TINY | {"options": {"channels": [8, 16, 24, 32], "layers": [1, 1, 1, 1]}}
SPARSE = {"tile_px": TILE, "input_px": TILE, "encoder": NARROW}


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


@pytest.mark.parametrize(("share", "count"), [(0.25, 2), (1.0, 8), (0.01, 1)])
def test_the_view_lies_in_the_middle_and_others_around_it(share, count):
    views = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 3, 10, 10)
    config = SurroundingsConfig(margin_px=4, share=share)
    windows = surround(views, config, seeded())
    assert windows.shape == (count, 3, 18, 18)
    torch.testing.assert_close(windows[..., 4:-4, 4:-4], views[:count])
    middle = torch.zeros(18, 18, dtype=torch.bool)
    middle[4:-4, 4:-4] = True
    for k, window in enumerate(windows):
        assert not (window[:, ~middle] == k).any()


def test_each_neighbour_keeps_its_own_side():
    row = torch.linspace(0, 1, 6)
    views = row.view(1, 1, 1, 6).expand(2, 1, 6, 6)
    window = surround(views, SurroundingsConfig(margin_px=2), seeded())[0, 0]
    # What touches the view on the left is the right end of another one.
    torch.testing.assert_close(window[4], torch.cat([row[-2:], row, row[:2]]))


def test_windows_are_laid_in_all_eight_ways():
    views = torch.rand(64, 3, 6, 6, generator=seeded())
    config = SurroundingsConfig(margin_px=2, share=1.0)
    plain = surround(views, config, seeded())
    turned = surround(views, config.model_copy(update={"turned": True}), seeded())
    ways = set()
    for window, laid in zip(plain, turned, strict=True):
        found = [
            (turns, mirrored)
            for turns in range(4)
            for mirrored in (False, True)
            if torch.equal(
                torch.rot90(window.flip(-1) if mirrored else window, turns, (-2, -1)),
                laid,
            )
        ]
        assert len(found) == 1
        ways.add(found[0])
    assert len(ways) == 8


def test_surroundings_wider_than_a_view_are_refused():
    with pytest.raises(InputError, match="margin_px is 9, wider than a view"):
        surround(torch.zeros(2, 3, 8, 8), SurroundingsConfig(margin_px=9), seeded())


def test_the_loss_is_a_share_without_unit():
    alone = torch.randn(16, 5, generator=seeded())
    same = surroundings_loss(alone, alone[:4])
    assert same.item() == 0
    mean = alone.mean(dim=0).expand(16, 5)
    assert surroundings_loss(alone, mean).item() == pytest.approx(1, abs=1e-6)
    among = alone[:6] + 0.3 * torch.randn(6, 5, generator=seeded())
    one = surroundings_loss(alone, among)
    expected = ((among - alone[:6]) ** 2).sum() / (
        (alone[:6] - alone.mean(0)) ** 2
    ).sum()
    assert one.item() == pytest.approx(expected.item())
    moved = surroundings_loss(7 * alone + 2, 7 * among + 2)
    assert moved.item() == pytest.approx(one.item(), rel=1e-4)


def test_a_student_without_tokens_cannot_have_surroundings():
    with pytest.raises(ValidationError, match="students with tokens"):
        small_config("unprivileged", surroundings={})


def test_a_margin_of_half_a_token_is_refused(tmp_path):
    tiles = write_textures(tmp_path / "tiles", cases=4, tiles=2)
    config = small_config(
        "unprivileged", sparse=SPARSE, surroundings={"margin_px": STRIDE // 2}
    )
    start_run(config, tmp_path / "run", tiles)
    with pytest.raises(InputError, match="whole tokens"):
        list(train(tmp_path / "run", device="cpu"))


def changed_share(student, rng) -> float:
    """Measure what the loss trains, on tissue of its own and through the student."""
    tiles = rng.integers(0, 256, (9, 24, 3, TILE, TILE), dtype=np.uint8)
    wave = np.sin(np.arange(TILE) * rng.uniform(0.1, 0.9, (9, 24, 1, 1, 1)))
    tiles = np.clip(0.2 * tiles + 130 + 90 * wave, 0, 255).astype(np.uint8)
    tiles = tiles.transpose(0, 1, 3, 4, 2)
    rows = [np.concatenate(list(tiles[k : k + 3]), axis=2) for k in (0, 3, 6)]
    whole = np.concatenate(rows, axis=1)
    first, last = TILE - MARGIN, 2 * TILE + MARGIN
    windows = np.ascontiguousarray(whole[:, first:last, first:last])
    alone = student.embed(np.ascontiguousarray(tiles[4]))
    among = [
        pool_tokens(
            tokens,
            stride_px=STRIDE,
            tile_px=TILE,
            centers_y_px=[MARGIN + TILE / 2],
            centers_x_px=[MARGIN + TILE / 2],
        )[0, 0]
        for tokens in student.tokens(windows)
    ]
    spread = ((alone - alone.mean(axis=0)) ** 2).sum()
    return float(((np.stack(among) - alone) ** 2).sum() / spread)


def test_trained_with_surroundings_tokens_agree_with_tiles(tmp_path):
    tiles = write_textures(tmp_path / "tiles")
    found, terms = {}, {}
    for name, surroundings in (("without", None), ("with", {"margin_px": MARGIN})):
        config = small_config(
            "supervised",
            augmentation="none",
            sparse=SPARSE,
            surroundings=surroundings,
            schedule={"steps": 40, "batch": 16, "lr": 3e-3, "keep": "last"},
        )
        folder = start_run(config, tmp_path / name, tiles)
        reports = [r for r in train(folder, device="cpu") if r.kind == "step"]
        terms[name] = set(reports[-1].terms)
        student = load_student(folder / "student", device="cpu", precision="float32")
        found[name] = changed_share(student, np.random.default_rng(0))
    assert terms == {
        "without": {"cross-entropy"},
        "with": {"cross-entropy", "surroundings"},
    }
    assert found["with"] < 0.7 * found["without"], found

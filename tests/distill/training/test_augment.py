"""Augmentation: what may change, what may not, and that chance is reproducible."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from napari_histodistill.distill.training import augment as augment_module
from napari_histodistill.distill.training.augment import (
    PRESETS,
    Augment,
    Geometry,
    draw_cuts,
    plain_view,
)
from napari_histodistill.distill.training.augment_colour import (
    Colour,
    change_colours,
    draw_colours,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(n=4, channels=3, px=24, seed=0):
    drawn = torch.randint(0, 256, (n, channels, px, px), generator=seeded(seed))
    return drawn.to(torch.uint8)


def recoloured(views, colour, generator):
    """Recolour as pictures of stains, if there are three channels."""
    has_stains = views.shape[1] == 3
    drawn = draw_colours(colour, len(views), generator, has_stains=has_stains)
    return change_colours(views, drawn)


def only(monkeypatch, geometry=None, colour=None):
    """Install a preset with nothing but what is given."""
    still = Geometry(flip=0, turned=0, share=(1, 1), aspect=1)
    monkeypatch.setitem(PRESETS, "paper", (geometry or still, colour or Colour()))


@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize("value", [0, 128, 255, None])
def test_views_stay_pictures(preset, value):
    images = pictures() if value is None else torch.full_like(pictures(), value)
    views = Augment(preset, kind="image", out_px=16)(images, seeded())
    assert views.shape == (4, 3, 16, 16)
    assert views.dtype == torch.float32
    assert torch.isfinite(views).all()
    assert views.min() >= 0
    assert views.max() <= 1


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_equal_generators_give_equal_bytes_whatever_the_global_one_does(preset):
    augment = Augment(preset, kind="image", out_px=16)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = augment(pictures(), seeded(7))
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(2)
    assert torch.equal(first, augment(pictures(), seeded(7)))
    assert not torch.equal(first, augment(pictures(), seeded(8)))


def test_what_is_drawn_does_not_depend_on_the_pictures():
    augment = Augment("histology", kind="image", out_px=16)
    one, other = seeded(3), seeded(3)
    augment(pictures(), one)
    augment(torch.zeros_like(pictures()), other)
    assert torch.equal(one.get_state(), other.get_state())


def test_nothing_drawn_changes_nothing(monkeypatch):
    only(monkeypatch)
    views = Augment("paper", kind="image", out_px=24)(pictures(), seeded())
    torch.testing.assert_close(views, pictures() / 255, atol=1e-5, rtol=0)


def test_flips_and_right_angles_are_exact(monkeypatch):
    only(monkeypatch, Geometry(right_angles=1, share=(1, 1), aspect=1))
    one = pictures(1)
    views = Augment("paper", kind="image", out_px=24)(one.repeat(64, 1, 1, 1), seeded())
    turned = [torch.rot90(one[0], k, (1, 2)) for k in range(4)]
    eight = [*turned, *(t.flip(2) for t in turned)]
    found = set()
    for view in views:
        places = [
            k
            for k, candidate in enumerate(eight)
            if torch.allclose(view, candidate / 255, atol=1e-4)
        ]
        assert len(places) == 1
        found.update(places)
    assert found == set(range(8))


def test_cuts_lie_inside_the_picture_where_nothing_is_turned():
    geometry = Geometry(turned=0, share=(0.6, 1.0))
    theta = draw_cuts(geometry, 500, seeded())
    reach = theta[:, :, :2].abs().sum(dim=2) + theta[:, :, 2].abs()
    assert reach.max() <= 1 + 1e-6
    sides = theta[:, :, :2].abs().sum(dim=2)
    assert sides.min() >= 0.6 / 1.18**0.5 - 1e-6


def test_the_papers_crop_draws_height_and_width_apart():
    geometry, _colour = PRESETS["paper"]
    theta = draw_cuts(geometry, 2000, seeded())
    still = theta[(theta[:, 0, 1] == 0)]
    assert 0.5 < len(still) / 2000 < 0.7  # a rotation in four of ten
    width, height = still[:, 0, 0].abs(), still[:, 1, 1].abs()
    assert width.min() >= 0.75
    assert height.max() <= 1
    assert abs(torch.corrcoef(torch.stack([width, height]))[0, 1]) < 0.1


def test_the_paper_inverts_three_of_ten():
    _geometry, colour = PRESETS["paper"]
    bright = torch.full((2000, 3, 2, 2), 0.9)
    dark = recoloured(bright, colour, seeded()).mean((1, 2, 3)) < 0.5
    assert 0.26 < dark.float().mean() < 0.34


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_masks_are_never_recoloured(preset):
    mask = (pictures(8, channels=1) > 127).to(torch.uint8) * 255
    uniform = torch.full_like(mask, 255)
    augment = Augment(preset, kind="mask", out_px=16)
    torch.testing.assert_close(augment(uniform, seeded()), torch.ones(8, 1, 16, 16))
    views = augment(mask, seeded())
    assert 0 <= views.min() <= views.max() <= 1


def test_other_channels_than_three_keep_their_ratio():
    stain = torch.cat(
        [torch.full((6, 1, 8, 8), v) for v in (0.2, 0.4, 0.5, 0.6, 0.3)], 1
    )
    changed = recoloured(stain, Colour(hue=0.3, saturation=(0.1, 2)), seeded())
    torch.testing.assert_close(changed, stain)


def test_a_stain_left_alone_is_left_alone():
    views = pictures() / 255
    same = recoloured(views.clamp(1 / 255, 1), Colour(stain_shift=1e-9), seeded())
    torch.testing.assert_close(same, views.clamp(1 / 255, 1), atol=2e-3, rtol=0)


def test_stains_change_white_least():
    shift = Colour(stain_scale=(0.5, 0.5))
    white = recoloured(torch.ones(1, 3, 4, 4), shift, seeded())
    purple = torch.tensor([0.4, 0.2, 0.6]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    paler = recoloured(purple, shift, seeded())
    torch.testing.assert_close(white, torch.ones_like(white))
    # Half of every stain is the square root of the light that comes through.
    torch.testing.assert_close(paler, purple.sqrt(), atol=2e-3, rtol=0)


@pytest.mark.parametrize(("px", "out"), [(28, 56), (24, 24), (64, 24)])
def test_a_plain_view_is_an_interpolation(px, out):
    images = pictures(2, px=px)
    wanted = functional.interpolate(
        images / 255, size=(out, out), mode="bilinear", antialias=px > out
    )
    torch.testing.assert_close(plain_view(images, out), wanted)
    none = Augment("none", kind="image", out_px=out)
    torch.testing.assert_close(none(images, seeded()), wanted)


def test_enlarging_in_training_is_enlarging_later(monkeypatch):
    only(monkeypatch)
    views = Augment("paper", kind="image", out_px=56)(pictures(2, px=28), seeded())
    inside = (..., slice(1, -1), slice(1, -1))
    torch.testing.assert_close(
        views[inside], plain_view(pictures(2, px=28), 56)[inside], atol=1e-4, rtol=0
    )


def test_a_great_reduction_does_not_alias(monkeypatch):
    only(monkeypatch)
    fine = (torch.arange(64)[:, None] + torch.arange(64)) % 2 * 255
    board = fine.to(torch.uint8).expand(1, 3, 64, 64)
    views = Augment("paper", kind="image", out_px=16)(board, seeded())
    assert (views - 0.5).abs().max() < 0.02


def test_corners_of_a_turned_view_are_tissue():
    grey = torch.full((50, 3, 32, 32), 120, dtype=torch.uint8)
    theta = draw_cuts(PRESETS["histology"][0], 50, seeded())
    views = augment_module._cut(grey / 255, theta, 32)
    torch.testing.assert_close(views, torch.full_like(views, 120 / 255))

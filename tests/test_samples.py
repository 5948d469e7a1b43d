"""Samples: whole, honest, the same on every machine, and true to their truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_histodistill import samples
from napari_histodistill.cache import cache_dir
from napari_histodistill.layers.slide_layer import slide_of
from napari_histodistill.samples.synthetic import paint_slide
from napari_histodistill.samples.tissue_layout import CLASS_NAMES
from napari_histodistill.slides import open_slide


@pytest.fixture(scope="module")
def painting():
    return paint_slide(1600, 2200)


def small_painting(monkeypatch, calls: list[int]) -> None:
    """Make the painted slide small: the real one takes some 13 s."""

    def paint():
        calls.append(1)
        return paint_slide(400, 600)

    monkeypatch.setattr(samples, "paint_slide", paint)


def test_ihc_sample_is_a_pyramid_of_the_bundled_image():
    from skimage.data import immunohistochemistry

    with open_slide(samples.ihc_sample()) as slide:
        assert slide.shape == (512, 512)
        assert slide.mpp is not None
        assert slide.mpp.mean == pytest.approx(0.5)
        whole = np.asarray(slide.levels[0])
    np.testing.assert_array_equal(whole, immunohistochemistry())
    with tifffile.TiffFile(samples.ihc_sample()) as tif:
        assert len(tif.series[0].levels) == 2
        assert "estimate" in tif.ome_metadata


def test_ihc_sample_is_written_once():
    first = samples.ihc_sample()
    stamp = first.stat().st_mtime_ns
    assert samples.ihc_sample() == first
    assert first.stat().st_mtime_ns == stamp
    assert [p.name for p in first.parent.iterdir()] == [first.name]


def test_synthetic_slide_says_what_it_is_and_is_painted_once(monkeypatch):
    calls: list[int] = []
    small_painting(monkeypatch, calls)
    path = samples.synthetic_slide()
    assert "not-real-tissue" in path.name
    with tifffile.TiffFile(path) as tif:
        assert samples.SYNTHETIC_NAME in tif.ome_metadata
        assert "It is not tissue" in tif.ome_metadata
    truth = samples.synthetic_truth()
    assert truth.labels.shape == (25, 37)
    assert truth.um_per_px == 8
    assert truth.classes == CLASS_NAMES
    samples.synthetic_slide()
    assert len(calls) == 1


def test_a_slide_without_its_truth_is_painted_again(monkeypatch):
    calls: list[int] = []
    small_painting(monkeypatch, calls)
    slide = samples.synthetic_slide()
    for path in cache_dir("samples").glob("*.npz"):
        path.unlink()
    samples.synthetic_truth()
    assert len(calls) == 2
    assert slide.exists()


def test_sample_functions_return_slide_layers(monkeypatch):
    small_painting(monkeypatch, [])
    for open_sample in (samples.open_ihc_sample, samples.open_synthetic_sample):
        ((_levels, kwargs, kind),) = open_sample()
        assert kind == "image"
        slide = slide_of(kwargs["metadata"])
        assert slide is not None
        slide.close()


def test_painting_is_the_same_each_time_and_differs_by_seed():
    first, truth = paint_slide(300, 400)
    again, truth_again = paint_slide(300, 400)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(truth.labels, truth_again.labels)
    other, _ = paint_slide(300, 400, seed=1)
    assert (first != other).any()


def test_painting_holds_every_class(painting):
    image, truth = painting
    assert image.shape == (1600, 2200, 3)
    assert truth.labels.shape == (100, 137)
    share = np.bincount(truth.labels.ravel(), minlength=5) / truth.labels.size
    assert (share > 0.003).all(), share


def test_truth_lies_on_the_picture(painting):
    """Glass is bright, lymphoid tissue bluest, and shifting the truth breaks it."""
    image, truth = painting
    height, width = (n * 16 for n in (99, 137))
    cells = image[:height, :width].reshape(99, 16, 137, 16, 3).mean(axis=(1, 3))
    labels = truth.labels[:99, :137]
    brightness = cells.mean(axis=-1)
    glass = labels == CLASS_NAMES.index("glass")
    assert brightness[glass].min() > 205
    assert np.median(brightness[~glass]) < 200
    red_over_blue = cells[..., 0] / cells[..., 2]
    by_class = [np.median(red_over_blue[labels == k]) for k in range(1, 5)]
    assert int(np.argmin(by_class)) + 1 == CLASS_NAMES.index("lymphoid tissue")
    agreement = ((brightness > 222) == glass).mean()
    shifted = ((brightness > 222) == np.roll(glass, 6, axis=1)).mean()
    assert agreement > 0.97 > shifted


@pytest.mark.long
def test_the_stored_tiles_are_the_painted_ones(tmp_path):
    """sample_data/tiles can be made again; JPEG may differ by a shade elsewhere."""
    from napari_histodistill.distill.pairs.tilefolder import read_tile_folder
    from tests.bench.painted_tiles import write_painted_tiles

    stored = Path(__file__).parents[1] / "sample_data" / "tiles"
    again = write_painted_tiles(tmp_path / "tiles")
    names = sorted(f.name for f in stored.iterdir())
    assert names == sorted(f.name for f in again.iterdir())
    manifest = (stored / "manifest.csv").read_text()
    assert manifest == (again / "manifest.csv").read_text()
    folder, painted = read_tile_folder(stored), read_tile_folder(again)
    assert len(folder.folds()) == 72
    for old, new in zip(folder.tiles, painted.tiles, strict=True):
        before, after = (f.read(t, 112)[0] for f, t in ((folder, old), (painted, new)))
        assert np.abs(before.astype(int) - after).mean() < 3


@pytest.fixture(scope="module")
def bulb():
    from napari_histodistill.samples.bulb import paint_bulb

    return paint_bulb()


def test_a_painted_bulb_is_the_same_each_time_and_differs_by_seed():
    from napari_histodistill.samples.bulb import paint_bulb

    first, again = paint_bulb(300, 700), paint_bulb(300, 700)
    np.testing.assert_array_equal(first.picture, again.picture)
    np.testing.assert_array_equal(first.labels, again.labels)
    other = paint_bulb(300, 700, seed=1)
    assert (first.picture != other.picture).any()
    assert (first.labels != other.labels).any()


def test_the_layers_of_a_painted_bulb_follow_each_other(bulb):
    """Each layer touches those before and after it; none is skipped."""
    from napari_histodistill.samples.bulb import CLASS_NAMES, MITRAL

    labels = bulb.labels.astype(int)
    assert labels.shape == bulb.picture.shape[:2]
    met = np.abs(np.diff(labels, axis=1)).ravel()
    assert np.bincount(met)[2:].sum() < 0.02 * np.bincount(met)[1]
    share = np.bincount(labels.ravel(), minlength=len(CLASS_NAMES)) / labels.size
    assert (share > 0.01).all(), share
    assert share[1:].argmin() + 1 == MITRAL, "the thinnest"


def test_nuclei_of_a_painted_bulb_are_as_dense_as_its_layers_say(bulb):
    from napari_histodistill.samples import bulb as painting

    red = bulb.picture[..., 0].astype(float)
    dark = [np.mean(red[bulb.labels == k] < 150) for k in range(6)]
    assert dark[painting.GLASS] == 0
    plexiform = dark[painting.OUTER_PLEXIFORM]
    assert all(dark[k] > 2 * plexiform for k in (1, 2, 4, 5))
    assert max(dark) == dark[painting.GRANULAR]
    shifted = np.roll(bulb.labels, 40, axis=1)
    assert np.mean(red[shifted == painting.GLASS] < 150) > 0.01


def test_the_bulb_sample_says_what_it_is_and_which_students_it_shows(monkeypatch):
    from napari_histodistill.layers.slide_layer import OVERLAY_MARK, students_of
    from napari_histodistill.samples import bulb as painting
    from napari_histodistill.students import list_students

    def small():
        return paint(400, 600)

    paint = painting.paint_bulb
    monkeypatch.setattr(painting, "paint_bulb", small)
    (labels, truth, kind), (_, kwargs, image) = samples.open_bulb_sample()
    assert (kind, image) == ("labels", "image")
    assert kwargs["name"] == "Painted olfactory bulb (not real tissue)"
    slide = slide_of(kwargs["metadata"])
    assert slide.mpp.mean == 4
    assert "not tissue" in slide.info.notes[0]
    assert "says nothing about real tissue" in slide.info.notes[0]
    shown = students_of(kwargs["metadata"])
    assert shown == ("bulb-genes", "bulb-control")
    assert set(shown) <= {entry.name for entry in list_students()}
    # The truth lies on the picture, is hidden, and is never a partner.
    assert labels.shape == slide.shape
    assert truth["scale"] == tuple(kwargs["scale"])
    assert tuple(kwargs["translate"]) == (0, 0)
    assert not truth["visible"]
    assert OVERLAY_MARK in truth["metadata"]


def test_painted_spots_count_what_lies_under_them():
    from napari_histodistill.samples.spots import FOLD, MPP, SPOT_UM, paint_spots

    known = paint_spots(800)
    again = paint_spots(800)
    np.testing.assert_array_equal(known.counts, again.counts)
    assert known.genes == again.genes
    y, x = known.positions_um[40] / MPP
    rows, columns = np.ogrid[:800, :800]
    disc = np.hypot(rows - round(y), columns - round(x)) * MPP <= SPOT_UM / 2
    assert known.zone_share[40] == pytest.approx(known.positive[disc].mean())
    kinds = np.array([gene.rstrip("0123456789") for gene in known.genes])
    share = known.counts / known.counts.sum(axis=1, keepdims=True)
    inside, outside = known.zone_share > 0.9, known.zone_share < 0.1
    assert min(inside.sum(), outside.sum()) > 20
    fold = share[inside].mean(axis=0) / share[outside].mean(axis=0)
    middle = {kind: np.median(fold[kinds == kind]) for kind in set(kinds)}
    assert middle["UP"] / middle["EVEN"] == pytest.approx(FOLD, rel=0.25)
    assert middle["EVEN"] / middle["DOWN"] == pytest.approx(FOLD, rel=0.25)
    # A column's place says nothing, nor does how much was captured.
    assert kinds[:20].tolist() != sorted(kinds[:20], reverse=True)
    total = known.counts.sum(axis=1)
    assert abs(np.corrcoef(total, known.zone_share)[0, 1]) < 0.4

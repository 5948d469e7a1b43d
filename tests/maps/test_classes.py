"""Class maps: labels, confidence and areas are those of the head and the grid."""

from __future__ import annotations

import numpy as np
import pytest

from napari_histodistill.errors import InputError, StoreError
from napari_histodistill.maps import (
    EmbeddingStore,
    class_map,
    classify_embeddings,
    embed_slide,
    plan_grid,
)
from napari_histodistill.students.head import Head
from tests.fakes import array_slide, colour_student
from tests.maps.helpers import in_small_steps, small_grid


@pytest.fixture
def mapped(tmp_path):
    slide, student = array_slide(), colour_student()
    for _ in embed_slide(slide, student, tmp_path / "s"):
        pass
    return class_map(tmp_path / "s", student), student, tmp_path / "s"


def test_glands_and_stroma(mapped):
    found, student, path = mapped
    with EmbeddingStore.open(path) as store:
        values, status = store.read(), store.status
    assert ((found.labels > 0) == (status == 1)).all()
    wish = student.classify(values[status == 1])
    np.testing.assert_array_equal(found.labels[status == 1], wish.argmax(1) + 1)
    np.testing.assert_array_equal(found.confidence[status == 1], wish.max(1))
    np.testing.assert_array_equal(found.probabilities[status == 1], wish)
    assert np.isnan(found.probabilities[status != 1]).all()
    assert found.labels[found.grid.cell_at(210, 240)] == 2
    assert found.labels[found.grid.cell_at(300, 150)] == 1
    assert found.labels[0, 0] == 0
    assert found.mode == "tiles"
    assert (found.labels.dtype, found.confidence.dtype) == (np.uint8, np.float32)


def test_an_open_store_gives_the_same(mapped):
    found, student, path = mapped
    with EmbeddingStore.open(path) as store:
        again = class_map(store, student)
    np.testing.assert_array_equal(found.labels, again.labels)


def test_a_large_store_is_read_in_steps(mapped, monkeypatch):
    found, student, path = mapped
    heights = in_small_steps(monkeypatch)
    again = class_map(path, student)
    np.testing.assert_array_equal(found.labels, again.labels)
    np.testing.assert_array_equal(found.confidence, again.confidence)
    np.testing.assert_allclose(found.probabilities, again.probabilities, rtol=1e-6)
    assert len(heights) > 1
    assert max(heights) < len(found.labels)


def test_areas_count_only_what_lies_on_the_slide():
    grid = small_grid(height=100, width=100)  # 2 × 2 cells of 64 px at .5 µm
    student = colour_student()
    pink = np.array([0.9, 0.6, 0.75, 0.8, 0.36, 0.56])
    values = np.broadcast_to(pink, (2, 2, 6)).astype(np.float16)
    status = np.array([[1, 1], [0, 1]], np.uint8)
    found = classify_embeddings(
        values, status, grid, student.head, student.spec.classes
    )
    stroma, gland = found.areas()
    assert (stroma.name, stroma.cells) == ("stroma", 3)
    pixels = 64 * 64 + 64 * 36 + 36 * 36
    assert stroma.mm2 == pytest.approx(pixels * 0.25 / 1e6)
    assert (gland.name, gland.color, gland.cells, gland.mm2) == (
        "gland",
        "#56b4e9",
        0,
        0,
    )


def test_at_least_leaves_the_unsure_out(mapped):
    found, *_ = mapped
    sure = found.at_least(0.99)
    assert 0 < (sure.labels > 0).sum() < (found.labels > 0).sum()
    assert ((sure.labels == found.labels) | (sure.labels == 0)).all()
    assert (found.confidence[sure.labels > 0] >= 0.99).all()
    assert not sure.confidence[sure.labels == 0].any()


def test_another_students_embeddings_are_refused(mapped):
    _, student, path = mapped
    student.digest = "ab" * 16
    with pytest.raises(StoreError, match=r"made by student 'colour' \(c0c0c0c0\), not"):
        class_map(path, student)


def test_a_student_without_classes(tmp_path):
    student = colour_student(with_head=False)
    for _ in embed_slide(array_slide(), student, tmp_path / "s"):
        pass
    with pytest.raises(InputError, match="has no classes"):
        class_map(tmp_path / "s", student)


def test_a_head_that_does_not_fit():
    student, grid = colour_student(), small_grid()
    values = np.zeros((*grid.shape, 5), np.float16)
    status = np.ones(grid.shape, np.uint8)
    with pytest.raises(InputError, match=r"2 classes × 6 does not fit 2 classes"):
        classify_embeddings(values, status, grid, student.head, student.spec.classes)


def test_nothing_computed_yet():
    student, grid = colour_student(), small_grid()
    values = np.full((*grid.shape, 6), np.nan, np.float16)
    status = np.zeros(grid.shape, np.uint8)
    head = Head(student.head.weight, student.head.bias)
    found = classify_embeddings(values, status, grid, head, student.spec.classes)
    assert not found.labels.any()
    assert [a.cells for a in found.areas()] == [0, 0]


def test_a_border_cell_is_not_given_the_tissue_of_its_neighbour(tmp_path):
    """Its tile lies beyond the slide: all it could show is red, mirrored."""
    image = np.zeros((900, 1100, 3), np.uint8)
    image[:, :1000, 0] = image[:, 1000:, 2] = 255
    slide, student = array_slide(image, mpp=1.0, levels=1), colour_student(tile_px=224)
    grid = plan_grid(slide, student, stride_um=1000)
    reports = list(embed_slide(slide, student, tmp_path / "s", grid=grid, tissue=None))
    assert reports[-1].done == 1
    assert any("squares left out at the border" in r.message for r in reports)
    found = class_map(tmp_path / "s", student)
    np.testing.assert_array_equal(found.labels, [[1, 0]])
    flat = array_slide(image[:224], mpp=1.0, levels=1)
    with pytest.raises(InputError, match="larger than the slide"):
        plan_grid(flat, student, stride_um=1000)


def test_only_the_cells_that_are_asked_for(mapped, rng):
    whole, student, path = mapped
    cells = rng.random(whole.labels.shape) < 0.5
    part = class_map(path, student, cells=cells)
    np.testing.assert_array_equal(part.labels, np.where(cells, whole.labels, 0))
    np.testing.assert_array_equal(part.confidence, np.where(cells, whole.confidence, 0))
    assert np.isnan(part.probabilities[~cells]).all()
    kept = cells & (whole.labels > 0)
    np.testing.assert_array_equal(part.probabilities[kept], whole.probabilities[kept])
    assert sum(area.cells for area in part.areas()) == kept.sum() > 0
    everything = class_map(path, student, cells=np.ones_like(cells))
    np.testing.assert_array_equal(everything.labels, whole.labels)

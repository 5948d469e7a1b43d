"""What a run would do, in numbers and in words."""

from __future__ import annotations

import os
import re
import time

import dask.array as da
import numpy as np
import pytest

from napari_histodistill.controllers.shared.planning import (
    MOST_CELLS,
    READABLE_CELLS,
    RunPlan,
    default_step,
    detail_steps,
    finest_step,
    store_path_of,
    stored_since,
)
from napari_histodistill.errors import InputError
from napari_histodistill.geometry import Mpp, Region
from napari_histodistill.slides import slide_from_arrays
from napari_histodistill.slides.tissue.tissue import TissueMask
from napari_histodistill.students.student import Student
from tests.controllers.driving import open_session, ran_session
from tests.fakes import array_slide, colour_student, tissue_image


def steps_of(shape=(600, 800), mode="tiles", tissue=None):
    blank = da.zeros((*shape, 3), dtype=np.uint8, chunks=2048)
    mpp = Mpp(0.5, 0.5, "a test")
    slide = slide_from_arrays([blank], name="blank", mpp=mpp, digest="b1" * 32)
    return detail_steps(slide, colour_student(), mode, tissue)


def test_steps_go_from_one_tile_to_fractions_of_it():
    strides = [step.grid.stride_px for step in steps_of()]
    assert strides[0] == 32, "a tile"
    assert strides == sorted(set(strides), reverse=True)
    assert all(step.grid.tile_px == 32 for step in steps_of())


def test_token_steps_are_whole_tokens():
    steps = steps_of(mode="tokens")
    assert len(steps) > 1
    assert not any(step.grid.stride_px % 8 for step in steps)


def test_half_the_tissue_is_half_the_cells():
    half = np.zeros((10, 10), bool)
    half[:5] = True
    all_of, half_of = steps_of(), steps_of(tissue=TissueMask(half, (600, 800)))
    for a, b in zip(all_of, half_of, strict=True):
        assert b.cells == pytest.approx(a.cells / 2, abs=1)


def test_no_step_makes_a_map_too_large_for_a_layer():
    """The finest step would have 25 million cells here."""
    steps = steps_of((40_000, 40_000))
    assert len(steps) >= 2
    for step in steps:
        assert np.prod(step.grid.shape) <= MOST_CELLS


def test_the_first_choice_is_coarse_but_readable():
    steps = steps_of()
    chosen = default_step(steps)
    assert steps[chosen].cells >= READABLE_CELLS
    assert all(step.cells < READABLE_CELLS for step in steps[:chosen])
    tiny = steps_of((80, 80))
    assert default_step(tiny) == len(tiny) - 1, "the finest there is"


def test_wanted_cells_lie_in_region_tissue_and_shape(tmp_path):
    grid = steps_of()[0].grid
    plan = RunPlan(grid=grid, mode="tiles", store_path=tmp_path)
    assert plan.wanted_cells().all()
    assert plan.wanted_cells().shape == grid.shape
    mask = np.zeros((600, 800), bool)
    mask[:300] = True
    square = np.array([[0.0, 0], [0, 400], [600, 400], [600, 0]])
    plan = RunPlan(
        grid=grid,
        mode="tiles",
        store_path=tmp_path,
        region=Region(y=0, x=0, height=100, width=800),
        tissue=TissueMask(mask, (600, 800)),
        polygons=(square,),
    )
    rows, columns = np.nonzero(plan.wanted_cells())
    y, x = grid.centers()
    assert y[rows].max() < 128 + 32, "cells that touch the region"
    assert x[columns].max() < 400, "centres in the shape"
    assert len(rows) == 2 * 6


def test_the_store_is_named_by_its_content_not_by_the_file():
    slide, student = array_slide(), colour_student()
    grid = steps_of()[0].grid
    path = store_path_of(slide, student, grid, "tiles")
    assert path == store_path_of(array_slide(), colour_student(), grid, "tiles")
    assert path != store_path_of(slide, student, grid, "tokens")
    other = array_slide(tissue_image()[::-1].copy())
    assert path != store_path_of(other, student, grid, "tiles")
    assert str(path).startswith(os.environ["HISTODISTILL_CACHE"])


def test_a_student_without_identity_has_no_store():
    colour = colour_student()
    nobody = Student(colour.spec, colour.backend, head=colour.head)
    with pytest.raises(InputError, match="student has no digest"):
        store_path_of(array_slide(), nobody, steps_of()[0].grid, "tiles")


def test_a_map_of_another_day_says_its_date():
    session = ran_session()
    assert re.fullmatch(r"\d\d:\d\d", stored_since(session.store_path))
    then = time.mktime((2024, 3, 9, 7, 5, 0, 0, 0, -1))
    for file in session.store_path.rglob("*"):
        os.utime(file, (then, then))
    assert stored_since(session.store_path) == "09 Mar 2024, 07:05"


def test_no_map_has_no_time(tmp_path):
    assert stored_since(tmp_path / "none.zarr") == ""
    (tmp_path / "empty.zarr").mkdir()
    assert stored_since(tmp_path / "empty.zarr") == ""
    assert open_session().stored_since == ""


def test_the_finest_step_is_the_last_that_is_small_enough():
    steps = open_session().steps
    cells = [step.cells for step in steps]
    assert cells == sorted(cells)
    assert finest_step(steps, cells[2]) == 2
    assert finest_step(steps, cells[2] - 1) == 1
    assert finest_step(steps, cells[0] - 1) is None
    assert finest_step((), 1000) is None

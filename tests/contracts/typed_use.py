"""What a type checker makes of the public names; mypy reads this, nothing runs it."""

from __future__ import annotations

from pathlib import Path
from typing import assert_type

import napari_histodistill as nh
from napari_histodistill.distill.scoring.scores import Evaluation
from napari_histodistill.maps import ClassMap, RankedRegion, SimilarityMap
from napari_histodistill.slides import Slide
from napari_histodistill.students.student import Student


def use() -> None:
    """Use every name as a notebook would."""
    student = nh.load_student("colon-he")
    assert_type(student, Student)
    with nh.open_slide("slide.svs") as slide:
        assert_type(slide, Slide)
        slide.read(nh.Region(y=0, x=0, height=8, width=8), level=0)
        grid = nh.plan_grid(slide, student, stride_um=56)
        for report in nh.embed_slide(slide, student, "store.zarr", grid=grid):
            assert_type(report.done, int)
    found = nh.class_map("store.zarr", student)
    assert_type(found, ClassMap)
    heat = nh.similarity_map("store.zarr", at=[(1, 2)])
    assert_type(heat, SimilarityMap)
    assert_type(nh.rank_regions(heat), tuple[RankedRegion, ...])
    assert_type(nh.export_map(found, "map.geojson"), Path)
    nh.export_map(heat, "map.zarr")
    nh.export_wsinfer(student, "model")
    made = nh.train_student("recipe.toml", "run")
    assert_type(made, Path)
    assert_type(nh.evaluate_student(nh.load_student(made), "tiles"), Evaluation)
    nh.save_student("copy", nh.list_students()[0].spec, head=student.head)
    assert_type(nh.maps.class_map("store.zarr", student), ClassMap)
    # A slip is seen: were it not, mypy would call the comments unused.
    nh.open_a_slide("colon-he")  # type: ignore[attr-defined]
    nh.load_student(5)  # type: ignore[arg-type]

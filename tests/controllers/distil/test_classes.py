"""Classes out of a Labels layer: which there are, and a student that names them."""

from __future__ import annotations

import numpy as np
import pytest

import napari_histodistill.controllers.shared.background_import as background_import
from napari_histodistill.controllers.distil.classes import (
    WITH_CLASSES,
    ClassesFitted,
    ClassesProgress,
    Labelling,
    classes_of,
    fit_work,
)
from napari_histodistill.controllers.distil.session import DistilSession
from napari_histodistill.distill.runs.process import RunProcess
from napari_histodistill.errors import InputError
from napari_histodistill.geometry import Mpp
from napari_histodistill.running import CancelToken
from napari_histodistill.samples.paired import paint_pair
from napari_histodistill.slides import slide_from_arrays
from napari_histodistill.students import load_student
from tests.distill.small_runs import small_config, write_textures


def test_values_without_names_are_classes_by_number():
    found = classes_of("zones", [1, 4], {}, {4: "#112233"})
    assert [s.name for s in found.values()] == ["class 1", "class 4"]
    assert found[4].color == "#112233"
    assert found[1].color.startswith("#")


def test_numbered_objects_are_classes_by_their_column():
    named = {k: ("tumour", "stroma", "")[k % 3] for k in range(1, 200)}
    found = classes_of("nuclei", list(range(1, 200)), named, {})
    assert {s.name for s in found.values()} == {"stroma", "tumour"}
    assert 2 not in found, "what has no name is no class"
    assert found[1] == found[4]


def test_numbered_objects_without_a_column_are_refused():
    with pytest.raises(InputError, match=r"199 different values.*feature column"):
        classes_of("nuclei", list(range(1, 200)), {}, {})


def test_one_class_is_none():
    with pytest.raises(InputError, match="holds 1 class: two or more"):
        classes_of("zones", [7], {}, {})


def test_any_name_becomes_one_that_a_student_can_carry():
    named = {1: "<b>Tumour</b> (Ki-67⁺)", 2: "ödem", 3: "///"}
    names = [s.name for s in classes_of("zones", [1, 2, 3], named, {}).values()]
    assert len(set(names)) == 3
    assert all(name[0].isalnum() for name in names)
    with pytest.raises(InputError, match="alike but for their punctuation"):
        classes_of("zones", [1, 2], {1: "a/b", 2: "a:b"}, {})


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A student that a few steps of training made."""
    from napari_histodistill.distill.runs.folder import start_run
    from napari_histodistill.distill.runs.run import train

    home = tmp_path_factory.mktemp("run")
    config = small_config("unprivileged", classes=(), schedule={"steps": 4})
    folder = start_run(config, home / "run", write_textures(home / "tiles"))
    list(train(folder, device="cpu"))
    return folder / "student"


MPP = Mpp(0.5, 0.5, "a test")


@pytest.fixture(scope="module")
def painted():
    return paint_pair(768)


def work(painted, bundle, values, *, names=("H&E", "zones"), **changes):
    slide = slide_from_arrays(painted.sparse, name=names[0], mpp=MPP)
    given = {"named": {1: "outside", 2: "zone"}, "colors": {2: "#d55e00"}} | changes
    labelling = Labelling(names[1], values, np.diag([2.0, 2.0, 1]), **given)
    return fit_work(slide, labelling, bundle)


@pytest.fixture(autouse=True)
def _no_window(monkeypatch):
    def plainly(name, *, device="auto"):
        return load_student(name, device="cpu")

    monkeypatch.setattr(background_import, "load_student_in_background", plainly)


def test_a_student_with_classes_lies_beside_the_one_without(painted, bundle):
    values = np.where(np.arange(768) < 400, 1, 2)[:, None].repeat(768, 1)
    names = ("H-21-12345 Doe.svs", "H-21-12345 zones")
    reports = list(work(painted, bundle, values, names=names)(CancelToken()))
    assert isinstance(reports[0], ClassesProgress)
    last = reports[-1]
    assert isinstance(last, ClassesFitted)
    assert last.folder == bundle.with_name(WITH_CLASSES)
    for path in last.folder.rglob("*"):
        assert b"12345" not in path.read_bytes(), "neither layer nor slide is named"
    assert "On held-out regions it names the right class" in last.words
    assert "by chance 50%" in last.words
    student = load_student(last.folder, device="cpu")
    assert student.spec.class_names == ("outside", "zone")
    assert student.spec.classes[1].color == "#d55e00"
    metric = student.spec.metrics[-1]
    assert metric.name == "balanced accuracy"
    assert metric.low <= metric.value <= metric.high
    assert "folds over" in metric.protocol
    plain = load_student(bundle, device="cpu")
    pixels = np.random.default_rng(0).integers(0, 255, (3, 16, 16, 3), np.uint8)
    np.testing.assert_array_equal(student.embed(pixels), plain.embed(pixels))
    session = DistilSession(run=RunProcess(bundle.parent))
    assert session.student == bundle
    assert session.best_student == last.folder


def test_nothing_is_saved_where_there_is_too_little(painted, bundle):
    values = np.ones((768, 768), int)
    values[:40, :40] = 2
    target = bundle.with_name(WITH_CLASSES)
    before = target.exists()
    with pytest.raises(InputError, match="labels too little to fit and to test"):
        list(work(painted, bundle, values)(CancelToken()))
    assert target.exists() is before

"""What is passed on after a training from layers names none of them."""

from __future__ import annotations

import re

import numpy as np
import pytest

from napari_histodistill.controllers.distil.partners import Partner, PartnerKind
from napari_histodistill.controllers.distil.session import DistilSession
from napari_histodistill.distill.layers.partners import Spots
from napari_histodistill.distill.pairs.store import PAIRS
from napari_histodistill.distill.runs.folder import REPORT, STUDENT, start_run
from napari_histodistill.distill.runs.run import train
from napari_histodistill.geometry import Mpp
from napari_histodistill.running import CancelToken
from napari_histodistill.samples.paired import CHANNELS, paint_pair
from napari_histodistill.slides import slide_from_arrays
from napari_histodistill.students.bundle import load_spec

MPP = Mpp(0.5, 0.5, "a test")
HE, MARKER = "H-21-12345 Jane Doe HE.svs", "H-21-12345 Jane Doe CD3.tif"
MASK = "Jane Doe mask"
SECRETS = (b"12345", b"Jane Doe", b"HE.svs", b"CD3.tif")
"""Long enough not to be met among the bytes of weights."""


@pytest.fixture(scope="module")
def painted():
    return paint_pair(384)


@pytest.fixture
def session(painted):
    """A session with pairs of layers that are called like cases."""
    made = DistilSession()
    sparse = slide_from_arrays(painted.sparse, name=HE, mpp=MPP)
    dense = slide_from_arrays(painted.dense, name=MARKER, mpp=MPP, channels=CHANNELS)
    zones = (painted.dense[..., :1] > np.median(painted.dense[..., 0])).astype(np.uint8)
    mask = slide_from_arrays(zones, name=MASK, mpp=MPP)
    partners = [
        Partner(MARKER, PartnerKind.PICTURE, slide=dense),
        Partner(MASK, PartnerKind.MASK, slide=mask),
    ]
    made.choose(sparse, partners)
    made.sample(0.5, 32)
    made.take_pairs(list(made.plan_work()(CancelToken()))[-1])
    return made


def without_secrets(path):
    content = path.read_bytes()
    return not any(secret in content for secret in SECRETS)


def test_neither_student_nor_report_names_a_layer(session, tmp_path):
    name = "model-20261127-150000"
    folder = tmp_path / "H-21-12345" / name
    list(session.write_work(folder, name)(CancelToken()))
    config = session.recipe(name)
    short = config.schedule.model_copy(update={"steps": 1, "batch": 8})
    config = config.model_copy(update={"schedule": short})
    (folder / "config.toml").unlink()
    start_run(config, folder, folder / PAIRS)
    list(train(folder, device="cpu", threads=1))
    spec = load_spec(folder / STUDENT)
    assert re.match(r"My model, \d{4}-\d\d-\d\d: quick look$", spec.title)
    assert spec.training.partners[0].startswith("channels: column 'image'")
    assert spec.training.partners[1].startswith("mask: column 'mask'")
    assert "one H&E section learns from a second image, a mask" in spec.training.data
    files = [path for path in (folder / STUDENT).rglob("*") if path.is_file()]
    assert len(files) >= 3
    assert not [p.name for p in files if not without_secrets(p)]
    page = folder / REPORT
    assert without_secrets(page)
    assert str(tmp_path).encode() not in page.read_bytes()
    assert b"partner 1: channels" in page.read_bytes()


def test_a_title_that_is_typed_is_the_students(session):
    session.call_student("CD3 from H&E")
    assert session.recipe("m").title == "CD3 from H&E"
    session.call_student("")
    session.train_with_partner(use=False)
    assert session.recipe("m").title.endswith("quick look, without the partner")


def test_spots_go_by_what_they_are(painted):
    made = DistilSession()
    sparse = slide_from_arrays(painted.sparse, name=HE, mpp=MPP)
    where = np.random.default_rng(0).uniform(20, 160, (60, 2))
    values = np.random.default_rng(1).uniform(size=(60, 4)).astype(np.float32)
    spots = Spots(MARKER, where, values, ("A", "B", "C", "D"))
    made.choose(sparse, [Partner(MARKER, PartnerKind.SPOTS, spots=spots)])
    made.sample(0.5, 32)
    planned = list(made.plan_work()(CancelToken()))[-1]
    assert [p.name for p in planned.plan.partners] == ["spots"]
    assert made.say_layers().endswith(MARKER), "the window calls it by its name"

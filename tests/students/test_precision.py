"""A precision that a machine only emulates: measured once, and said."""

from __future__ import annotations

import json

import pytest
import torch

from napari_histodistill.cache import cache_dir
from napari_histodistill.students import device as devices
from napari_histodistill.students import precision as subject
from napari_histodistill.students.device import choose_device


@pytest.fixture
def old_cpu(monkeypatch) -> list[str]:
    """A CPU without bfloat16, on which it takes ten times as long; what it measured."""
    measured = []

    def seconds(_device, precision):
        measured.append(precision)
        return 0.01 if precision == "float32" else 0.1

    monkeypatch.setattr(devices, "cpu_has_bfloat16", lambda: False)
    monkeypatch.setattr(subject, "seconds", seconds)
    return measured


def test_the_measured_factor_is_said_and_measured_once(old_cpu):
    choice = choose_device("cpu", precision="bfloat16")
    note = subject.emulation_note(choice)
    assert "bfloat16 is only emulated" in note
    assert "10.0 times as long as float32" in note
    assert subject.emulation_note(choice) == note
    assert old_cpu == ["bfloat16", "float32"]
    kept = json.loads((cache_dir() / subject.FILE).read_text("utf-8"))
    assert [entry["factor"] for entry in kept.values()] == [10.0]


def test_other_threads_are_measured_again(old_cpu, monkeypatch):
    choice = choose_device("cpu", precision="bfloat16")
    subject.emulation_note(choice)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    subject.emulation_note(choice)
    assert len(old_cpu) == 4


@pytest.mark.parametrize("content", ["", "[]", '{"x": 1}', "damaged"])
def test_a_damaged_memory_is_measured_over(old_cpu, content):
    (cache_dir() / subject.FILE).write_text(content)
    assert subject.emulation_note(choose_device("cpu", precision="bfloat16"))


def test_what_is_native_or_not_slower_is_not_warned_of(old_cpu, monkeypatch):
    assert subject.emulation_note(choose_device("cpu", precision="float32")) == ""
    monkeypatch.setattr(subject, "seconds", lambda *_: 0.01)
    assert subject.emulation_note(choose_device("cpu", precision="float16")) == ""
    monkeypatch.setattr(devices, "cpu_has_bfloat16", lambda: True)
    assert subject.emulation_note(choose_device("cpu", precision="bfloat16")) == ""
    assert old_cpu == []


def test_a_student_in_a_stated_precision_carries_the_warning(old_cpu):
    from napari_histodistill.students import load_student

    stated = load_student("colon-probe", device="cpu:torch", precision="bfloat16")
    assert "only emulated" in stated.device.reason
    plain = load_student("colon-probe", device="cpu:torch")
    assert "emulated" not in plain.device.reason


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_the_measurement_draws_no_random_number_and_is_short(precision):
    before = torch.get_rng_state()
    assert 0 < subject.seconds("cpu", precision) < 2
    assert torch.equal(torch.get_rng_state(), before)

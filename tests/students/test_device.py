"""The device that a student runs on, on imitated machines."""

from __future__ import annotations

import pytest
import torch

from napari_histodistill.errors import DeviceError
from napari_histodistill.students import device as subject
from napari_histodistill.students.device import choose_device


@pytest.fixture
def machine(monkeypatch):
    """Return a function that turns this machine into another."""

    def become(*, cuda: int = 0, generation=9, mps=False, cpu_bfloat16=False):
        monkeypatch.setattr(subject, "_cuda_count", lambda: cuda)
        monkeypatch.setattr(subject, "_cuda_name", lambda index: f"Card {index}")
        monkeypatch.setattr(
            torch.cuda, "get_device_capability", lambda index: (generation, 0)
        )
        monkeypatch.setattr(subject, "_mps_available", lambda: mps)
        monkeypatch.setattr(subject, "cpu_has_bfloat16", lambda: cpu_bfloat16)

    return become


def test_auto_prefers_cuda_then_mps_then_cpu(machine):
    machine(cuda=2, mps=True)
    assert choose_device().name == "cuda:0"
    machine(mps=True)
    assert choose_device().name == "mps"
    machine()
    assert choose_device().name == "cpu"


def test_the_cpu_says_why_nothing_faster(machine):
    machine()
    choice = choose_device("auto")
    assert choice.reason.startswith("No CUDA device: torch ")
    assert "MPS" in choice.reason
    assert choice.reason.endswith("in float32.")
    assert choice.label.startswith("CPU · ")


@pytest.mark.parametrize(
    ("device", "features", "precision"),
    [
        ("cpu", {"cpu_bfloat16": True}, "bfloat16"),
        ("cpu", {}, "float32"),
        ("cuda", {"cuda": 1}, "float16"),
        ("cuda", {"cuda": 1, "generation": 7}, "float16"),
        ("cuda", {"cuda": 1, "generation": 6}, "float32"),
        ("mps", {"mps": True}, "float32"),
    ],
)
def test_precision_follows_the_hardware(machine, device, features, precision):
    machine(**features)
    assert choose_device(device).precision == precision


def test_precision_can_be_asked_for(machine):
    machine(cpu_bfloat16=True)
    choice = choose_device("cpu", precision="float32")
    assert choice.precision == "float32"
    assert choice.reason.endswith("in float32.")


@pytest.mark.parametrize(
    ("generation", "words"),
    [(9, "in float32 by TF32."), (7, "in float32."), (6, "in float32.")],
)
def test_a_card_says_when_float32_is_not_quite_that(machine, generation, words):
    machine(cuda=1, generation=generation)
    choice = choose_device("cuda", precision="float32")
    assert choice.precision == "float32"
    assert choice.reason.endswith(words)


def test_a_second_card_by_number(machine):
    machine(cuda=2)
    choice = choose_device("cuda:1")
    assert (choice.name, choice.label) == ("cuda:1", "CUDA:1 · Card 1")


@pytest.mark.parametrize(
    ("device", "cards", "words"),
    [
        ("gpu", 0, "'gpu' is unknown: use auto"),
        ("cuda:x", 1, "is unknown"),
        ("cuda", 0, "no CUDA device"),
        ("cuda:2", 2, "torch sees cuda:0, cuda:1"),
        ("mps", 0, "'mps' is not here"),
    ],
)
def test_absent_devices_are_refused(machine, device, cards, words):
    machine(cuda=cards)
    with pytest.raises(DeviceError, match=words):
        choose_device(device)


def test_unknown_precision_is_refused():
    with pytest.raises(DeviceError, match="precision 'int4' is unknown"):
        choose_device("cpu", precision="int4")

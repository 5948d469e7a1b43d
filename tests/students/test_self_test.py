"""Which backend the CPU uses: measured once, remembered, or said by the user."""

from __future__ import annotations

import json

import numpy as np
import pytest

from napari_histodistill.cache import cache_dir
from napari_histodistill.errors import ComputeError, DeviceError
from napari_histodistill.students import self_test as subject
from napari_histodistill.students.device import choose_device
from napari_histodistill.students.student import DeviceChoice
from tests.fakes import colour_student

CPU = DeviceChoice("cpu", "CPU · torch", "The CPU was asked for.")
SPEC = colour_student().spec


class Clock:
    """Time that passes only when a backend works."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


class Machine:
    """Builds backends that take a given time per call, and counts what was built."""

    def __init__(self, clock: Clock, **seconds: float | Exception) -> None:
        self.clock, self.seconds, self.built = clock, seconds, []

    def __call__(self, choice: DeviceChoice):
        self.built.append(choice.backend)
        spent = self.seconds[choice.backend]
        if isinstance(spent, Exception):
            raise spent
        clock = self.clock

        class Backend:
            device = choice

            def embed(self, tiles: np.ndarray) -> np.ndarray:
                assert tiles.shape[1:] == (SPEC.tile_px, SPEC.tile_px, 3)
                clock.now += spent
                return np.zeros((len(tiles), 6), np.float32)

        return Backend()


@pytest.fixture
def clock(monkeypatch) -> Clock:
    monkeypatch.delenv(subject.VARIABLE)
    monkeypatch.setattr(subject, "_installed", lambda: ("torch", "openvino"))
    monkeypatch.setattr(subject, "_circumstances", lambda choice, spec: spec.backbone)
    found = Clock()
    monkeypatch.setattr(subject, "time", found)
    return found


def test_the_fastest_is_used_and_remembered(clock):
    machine = Machine(clock, torch=0.08, openvino=0.02)
    chosen = subject.with_fastest(CPU, SPEC, machine)
    assert chosen.backend == "openvino"
    assert chosen.label == "CPU · OpenVINO"
    assert "OpenVINO 400, torch 100" in chosen.reason
    assert 2.0 <= clock.now <= 2.5
    again = subject.with_fastest(CPU, SPEC, machine)
    assert again == chosen
    assert machine.built == ["torch", "openvino"]


def test_torch_stays_where_nothing_is_clearly_faster(clock):
    machine = Machine(clock, torch=0.021, openvino=0.02)
    chosen = subject.with_fastest(CPU, SPEC, machine)
    assert (chosen.backend, chosen.label) == ("torch", CPU.label)


def test_a_backend_that_fails_is_not_used_and_named(clock):
    broken = ComputeError("the encoder cannot be converted: aten::odd")
    found = subject.measure(CPU, SPEC, Machine(clock, torch=0.1, openvino=broken))
    assert found.used == "torch"
    assert found.problems == {"openvino": "the encoder cannot be converted: aten::odd"}
    with pytest.raises(ComputeError, match="torch is ill"):
        subject.measure(CPU, SPEC, Machine(clock, torch=ComputeError("torch is ill")))


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"none": 3}', '{"none": {"speed": 1}}', '{"none": {"used": "odd"}}'],
)
def test_a_damaged_memory_is_measured_anew(clock, content):
    (cache_dir() / "backends.json").write_text(content)
    machine = Machine(clock, torch=0.08, openvino=0.02)
    assert subject.with_fastest(CPU, SPEC, machine).backend == "openvino"
    kept = json.loads((cache_dir() / "backends.json").read_text())
    assert kept["none"]["used"] == "openvino"


def test_a_backend_that_was_removed_is_not_remembered(clock, monkeypatch):
    subject.with_fastest(CPU, SPEC, Machine(clock, torch=0.08, openvino=0.02))
    monkeypatch.setattr(subject, "_installed", lambda: ("torch",))
    assert subject.remembered(CPU, SPEC) is None
    assert subject.with_fastest(CPU, SPEC, Machine(clock)) is CPU


def test_the_variable_settles_it(clock, monkeypatch):
    monkeypatch.setenv(subject.VARIABLE, "OpenVINO")
    chosen = subject.with_fastest(CPU, SPEC, Machine(clock))
    assert chosen.backend == "openvino"
    assert subject.VARIABLE in chosen.reason
    monkeypatch.setenv(subject.VARIABLE, "tensorrt")
    with pytest.raises(DeviceError, match="'tensorrt' is not a backend; use torch or"):
        subject.with_fastest(CPU, SPEC, Machine(clock))


def test_circumstances_tell_encoders_threads_and_precisions_apart():
    import torch

    one = subject._circumstances(CPU, SPEC)
    assert one == subject._circumstances(CPU, SPEC)
    other = SPEC.model_copy(update={"tile_px": 64})
    bf16 = DeviceChoice("cpu", "", "", "bfloat16")
    threads = torch.get_num_threads()
    keys = {one, subject._circumstances(CPU, other), subject._circumstances(bf16, SPEC)}
    try:
        torch.set_num_threads(threads + 1)
        keys.add(subject._circumstances(CPU, SPEC))
    finally:
        torch.set_num_threads(threads)
    assert len(keys) == 4


def test_a_backend_by_name():
    chosen = choose_device("cpu:openvino")
    assert (chosen.name, chosen.backend) == ("cpu", "openvino")
    assert chosen.label.endswith("· OpenVINO")
    assert chosen.reason.endswith("OpenVINO was asked for.")
    assert choose_device("cpu:torch").label.endswith("· torch")
    with pytest.raises(DeviceError, match="no backend is called 'tensorrt'"):
        choose_device("cpu:tensorrt")

"""What ``doctor`` says of cards that are not here."""

from __future__ import annotations

import pytest
import torch

from napari_histodistill.students import accelerators as subject
from napari_histodistill.students.accelerators import accelerator_lines, accelerators

NVRM = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 2024\n"


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Return a function that turns this machine into another."""

    def become(
        *,
        capability=(),
        built=("sm_60", "sm_75", "sm_90"),
        driver="",
        driver_cuda=0,
        torch_cuda=None,
        mps=False,
        has=("libnvcuvid.so.1",),
    ) -> None:
        told = tmp_path / "version"
        if driver:
            told.write_text(driver)
        cards = {
            "is_available": lambda: bool(capability),
            "device_count": lambda: len(capability),
            "get_device_name": lambda index: f"Card {index}",
            "get_device_capability": lambda index: capability[
                int(str(index).removeprefix("cuda:"))
            ],
            "mem_get_info": lambda index: (30 * 2**30, 80 * 2**30),
            "get_arch_list": lambda: list(built),
        }
        for name, value in cards.items():
            monkeypatch.setattr(torch.cuda, name, value)
        monkeypatch.setattr(subject, "DRIVER", told)
        monkeypatch.setattr(torch.version, "cuda", torch_cuda)
        monkeypatch.setattr(
            torch._C, "_cuda_getDriverVersion", lambda: driver_cuda, raising=False
        )
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(
            torch.mps, "recommended_max_memory", lambda: 12 * 2**30, raising=False
        )
        monkeypatch.setattr(subject.platform, "system", lambda: "Linux")
        monkeypatch.setattr(subject, "_loads", lambda library: library in has)
        monkeypatch.setattr(subject, "_is_installed", lambda package: package in has)

    return become


def test_cards_are_told_with_what_they_really_have(machine):
    machine(
        capability=((9, 0), (7, 5), (6, 1)),
        driver=NVRM,
        driver_cuda=12040,
        torch_cuda="12.6",
    )
    found = accelerators()
    assert [card["native"] for card in found["cards"]] == [
        ["float16", "bfloat16", "TF32"],
        ["float16"],
        [],
    ]
    lines = accelerator_lines(found)
    assert lines == [
        "cuda:0 · Card 0: 30.0 of 80.0 GiB free, compute capability 9.0, float16 and "
        "bfloat16 and TF32 in hardware",
        "cuda:1 · Card 1: 30.0 of 80.0 GiB free, compute capability 7.5, float16 in "
        "hardware",
        "cuda:2 · Card 2: 30.0 of 80.0 GiB free, compute capability 6.1, only float32 "
        "in hardware",
        # Within a major version an older driver runs a newer build.
        "driver 550.54.15 (CUDA 12.4), torch was built for CUDA 12.6",
        "decoding on the card: NVDEC; slides are decoded by the CPU",
        "MPS: only on Apple silicon",
    ]


@pytest.mark.parametrize(
    ("has", "words"),
    [
        ([], "none found"),
        (["libnvcuvid.so.1"], "NVDEC"),
        (["nvcuvid.dll"], "NVDEC"),
        (["libnvjpeg.so.13"], "nvJPEG"),
        (["libnvjpeg.so.12"], "nvJPEG"),
        (["nvidia.nvjpeg"], "nvJPEG"),
        (["nvidia.nvimgcodec"], "nvImageCodec"),
        (["libnvcuvid.so.1", "libnvjpeg.so.12"], "NVDEC and nvJPEG"),
    ],
)
def test_decoders_are_named_that_are_installed(machine, has, words):
    machine(capability=((9, 0),), torch_cuda="12.6", has=has)
    line = f"decoding on the card: {words}; slides are decoded by the CPU"
    assert line in accelerator_lines(accelerators())


@pytest.mark.parametrize(
    ("card", "built", "runs"),
    [
        ((9, 0), ["sm_80", "sm_90"], True),
        ((8, 9), ["sm_80", "sm_90"], True),  # within a major version
        ((8, 0), ["sm_86"], False),
        ((12, 0), ["sm_80", "sm_90"], False),
        ((12, 0), ["sm_90", "compute_90"], True),  # compiled when it is first used
        ((6, 1), ["sm_75", "compute_75"], False),
        ((10, 0), ["sm_100"], True),
        ((9, 0), ["sm_90a"], True),
        ((10, 3), ["sm_100a", "compute_90a"], False),
        ((7, 5), [], False),
    ],
)
def test_a_torch_without_kernels_for_the_card_is_said(machine, card, built, runs):
    machine(capability=(card,), built=built, torch_cuda="12.6")
    found = accelerators()
    assert found["cards"][0]["has_kernels"] == runs
    words = "this torch cannot use it: it was built without kernels for that compute"
    assert (words in accelerator_lines(found)[0]) == (not runs)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({}, "this torch was built without CUDA"),
        ({"driver": NVRM}, "built without CUDA, though driver 550.54.15 is here"),
        ({"torch_cuda": "13.0"}, "no NVIDIA driver was found"),
        (
            {"torch_cuda": "13.0", "driver": NVRM, "driver_cuda": 12040},
            "driver 550.54.15 (CUDA 12.4), torch was built for CUDA 13.0: update the "
            "driver, or install torch for CUDA 12.4 or older",
        ),
        (
            {"torch_cuda": "12.6", "driver": NVRM, "driver_cuda": 12040},
            "no CUDA card that torch can use, though driver 550.54.15 is here",
        ),
    ],
)
def test_why_there_is_no_card(machine, facts, words):
    machine(**facts)
    assert words in accelerator_lines(accelerators())[0]


def test_apples_gpu_is_said_to_be_untried(machine):
    machine(mps=True)
    assert accelerator_lines(accelerators())[-1] == (
        "MPS · Apple GPU: up to 12.0 GiB, computing in float32; written for, but never "
        "run by us"
    )

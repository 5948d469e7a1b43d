"""Precisions that a machine only emulates, and how much slower they are here.

A CPU that cannot multiply bfloat16 computes in float32 and rounds; a card older than
Ampere does alike. Training then takes many times as long, with nothing to show for it.
"""

from __future__ import annotations

import hashlib
import json
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import torch

from napari_histodistill.students import device as devices
from napari_histodistill.students.self_test import keep, kept, processor

if TYPE_CHECKING:
    from napari_histodistill.students.student import DeviceChoice

FILE = "precisions.json"
ROUNDS = 3
NOTICED = 1.2
"""A factor below this is no reason for a warning."""

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def emulation_note(choice: DeviceChoice) -> str:
    """Return a warning where a precision that was asked for is only emulated.

    The first call on a machine trains a convolution for an instant in both precisions;
    the factor is kept in the user's cache.

    Parameters
    ----------
    choice : DeviceChoice
        Device, and the precision that was asked for.

    Returns
    -------
    str
        A sentence with the measured factor; empty where the precision is native, or
        no slower.
    """
    if choice.precision not in _DTYPES or _is_native(choice):
        return ""
    factor = _factor(choice)
    if factor < NOTICED:
        return ""
    return (
        f"Warning: {choice.precision} is only emulated on this machine and took "
        f"{factor:.1f} times as long as float32 in a short measurement; precision "
        '"auto" takes the faster one.'
    )


def _is_native(choice: DeviceChoice) -> bool:
    if choice.name == "cpu":
        # torch cannot be asked about float16 on a CPU everywhere: it is measured.
        return choice.precision == "bfloat16" and devices.cpu_has_bfloat16()
    if choice.name.startswith("cuda") and choice.precision == "bfloat16":
        return devices.cuda_has_bfloat16(int(choice.name.partition(":")[2] or 0))
    return True


def _factor(choice: DeviceChoice) -> float:
    on_cpu = choice.name == "cpu"
    where = processor() if on_cpu else torch.cuda.get_device_name(choice.name)
    facts = [where, choice.name, choice.precision, str(torch.__version__)]
    facts.append(str(torch.get_num_threads()))
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]
    with suppress(TypeError, ValueError, KeyError):
        return float(kept(FILE)[key]["factor"])
    factor = seconds(choice.name, choice.precision) / seconds(choice.name, "float32")
    keep(FILE, key, {"factor": round(factor, 2)})
    return factor


def seconds(device: str, precision: str) -> float:
    """Return how long one step of a small convolution takes, forwards and back.

    No random number is drawn: a training's own must not depend on it.

    Parameters
    ----------
    device : str
        Name of a torch device.
    precision : {"float32", "bfloat16", "float16"}
        What it is computed in, by torch's autocast as in a training.
    """
    kind = device.partition(":")[0]
    dtype = _DTYPES.get(precision)
    pixels = torch.linspace(-1, 1, 8 * 32 * 48 * 48, device=device)
    weight = torch.linspace(-1, 1, 64 * 32 * 9, device=device).reshape(64, 32, 3, 3)
    weight.requires_grad_()
    best = float("inf")
    for _ in range(1 + ROUNDS):  # the first sets things up and is never the fastest
        began = time.perf_counter()
        with torch.autocast(kind, dtype=dtype, enabled=dtype is not None):
            out = torch.nn.functional.conv2d(pixels.reshape(8, 32, 48, 48), weight)
        out.float().square().mean().backward()  # type: ignore[no-untyped-call]
        if kind == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - began)
    return best

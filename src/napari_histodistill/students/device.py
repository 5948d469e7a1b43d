"""The choice of the device that runs an encoder, with the reason in one sentence.

torch is queried through a few plain functions, so that tests can imitate other machines
than the one they run on.
"""

from __future__ import annotations

import platform
import re
from dataclasses import replace

import torch

from napari_histodistill.errors import DeviceError
from napari_histodistill.students.student import DeviceChoice

PRECISIONS = ("float32", "bfloat16", "float16")
BACKENDS = {"torch": "torch", "openvino": "OpenVINO"}
"""Backends that can run an encoder on a CPU, and their names for the user."""

_KNOWN = re.compile(r"^(auto|cpu(:\w+)?|mps|cuda(:\d+)?)$")


def choose_device(
    requested: str = "auto", *, precision: str | None = None
) -> DeviceChoice:
    """Choose the device to run on.

    Parameters
    ----------
    requested : str
        ``"auto"`` (CUDA, then MPS, then the CPU), or a device by torch's name:
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``; the CPU also with the backend:
        ``"cpu:torch"``, ``"cpu:openvino"``.
    precision : {"float32", "bfloat16", "float16"} or None
        None takes the fastest one on the device that does not change the results.

    Returns
    -------
    DeviceChoice
        The device with a label for the user, the reason, and the precision.

    Raises
    ------
    DeviceError
        If the device is unknown or does not exist on this machine.
    """
    wanted = requested.strip().lower()
    if not _KNOWN.match(wanted):
        msg = (
            f"device {requested!r} is unknown: use auto, cpu, cpu:torch, cpu:openvino, "
            "mps, cuda, or one CUDA device such as cuda:1."
        )
        raise DeviceError(msg)
    wanted, backend = split_backend(wanted)
    if backend and backend not in BACKENDS:
        have = " or ".join(f"cpu:{name}" for name in BACKENDS)
        msg = f"device {requested!r}: no backend is called {backend!r}; use {have}."
        raise DeviceError(msg)
    if precision is not None and precision not in PRECISIONS:
        msg = f"precision {precision!r} is unknown: use one of {', '.join(PRECISIONS)}."
        raise DeviceError(msg)
    choice = _choose(wanted)
    if precision is not None and precision != choice.precision:
        by = " by TF32" if precision == "float32" and _runs_tf32(choice.name) else ""
        reason = choice.reason.replace(
            f"in {choice.precision}.", f"in {precision}{by}."
        )
        choice = replace(choice, precision=precision, reason=reason)
    if backend:
        return through(choice, backend, f"{BACKENDS[backend]} was asked for.")
    return choice


def split_backend(requested: str) -> tuple[str, str]:
    """Split ``cpu:openvino`` into device and backend; other devices have no backend."""
    device, _, backend = requested.strip().lower().partition(":")
    return (device, backend) if device == "cpu" else (requested.strip().lower(), "")


def through(choice: DeviceChoice, backend: str, why: str) -> DeviceChoice:
    """Return the CPU with another backend, named in label and reason."""
    return replace(
        choice,
        backend=backend,
        label=f"CPU · {BACKENDS[backend]}",
        reason=f"{choice.reason} {why}",
    )


def _choose(wanted: str) -> DeviceChoice:
    if wanted == "cpu":
        return _cpu("the CPU was asked for")
    if wanted == "mps":
        return _mps_or_refuse()
    if wanted.startswith("cuda"):
        return _cuda_or_refuse(wanted)
    if _cuda_count():
        return _cuda(0, "the first CUDA device, the fastest that torch sees here")
    if _mps_available():
        return _mps("no CUDA device, so Apple's GPU")
    return _cpu(f"{_why_no_cuda()}; {_why_no_mps()}; so the CPU")


def _cuda_or_refuse(wanted: str) -> DeviceChoice:
    count = _cuda_count()
    index = int(wanted.partition(":")[2] or 0)
    if not count:
        msg = f"device {wanted!r} is not here: {_why_no_cuda()}. Use auto or cpu."
        raise DeviceError(msg)
    if index >= count:
        have = ", ".join(f"cuda:{k}" for k in range(count))
        msg = f"device {wanted!r} is not here: torch sees {have}."
        raise DeviceError(msg)
    return _cuda(index, f"{wanted} was asked for")


def _mps_or_refuse() -> DeviceChoice:
    if not _mps_available():
        msg = f"device 'mps' is not here: {_why_no_mps()}. Use auto or cpu."
        raise DeviceError(msg)
    return _mps("mps was asked for")


def _cuda(index: int, why: str) -> DeviceChoice:
    # float16 has the bits of TF32, and no layer must be spared as in bfloat16.
    precision = "float16" if cuda_has_float16(index) else "float32"
    return DeviceChoice(
        name=f"cuda:{index}",
        label=f"CUDA:{index} · {_cuda_name(index)}",
        reason=f"{_sentence(why)}, computing in {precision}.",
        precision=precision,
    )


def _mps(why: str) -> DeviceChoice:
    return DeviceChoice(
        name="mps", label="MPS · Apple GPU", reason=f"{_sentence(why)}, in float32."
    )


def _cpu(why: str) -> DeviceChoice:
    # bfloat16 after the early layers (students/backends/early_layers.py): on 300 real
    # and painted tiles the cosine to float32 was at least .999, and `colon-he` gave
    # each the same class. Without native bfloat16: float32.
    precision = "bfloat16" if cpu_has_bfloat16() else "float32"
    threads = torch.get_num_threads()
    plural = "" if threads == 1 else "s"
    return DeviceChoice(
        name="cpu",
        label="CPU · torch",
        reason=f"{_sentence(why)} with {threads} thread{plural}, in {precision}.",
        precision=precision,
    )


def _sentence(why: str) -> str:
    return why if why.startswith(("mps", "cuda")) else why[0].upper() + why[1:]


def _why_no_cuda() -> str:
    if not torch.version.cuda:
        return f"no CUDA device: torch {torch.__version__} was built without CUDA"
    return f"no CUDA device: torch {torch.__version__} sees none (no card or no driver)"


def _why_no_mps() -> str:
    if platform.system() != "Darwin":
        return "MPS is only on Apple silicon"
    return f"torch {torch.__version__} sees no MPS device"


def _cuda_count() -> int:
    # is_available first: it asks for the driver without a warning if there is none.
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _cuda_name(index: int) -> str:
    return torch.cuda.get_device_name(index)


def cuda_has_bfloat16(index: int) -> bool:
    """Return whether a card multiplies bfloat16 natively (Ampere and later).

    ``torch.cuda.is_bf16_supported()`` counts emulation, and asks the current card.
    """
    return torch.cuda.get_device_capability(index)[0] >= 8


def cuda_has_float16(index: int) -> bool:
    """Return whether a card multiplies float16 fast (Volta and later)."""
    return torch.cuda.get_device_capability(index)[0] >= 7


def cuda_has_tf32(name: str) -> bool:
    """Return whether convolutions in float32 run as TF32 on a card, by torch's name."""
    if torch.cuda.get_device_capability(name)[0] < 8:
        return False
    try:
        return bool(torch.backends.cudnn.allow_tf32)
    except RuntimeError:  # set by torch's newer names, which the older cannot tell
        return True


def _runs_tf32(name: str) -> bool:
    return name.startswith("cuda") and cuda_has_tf32(name)


def _mps_available() -> bool:
    return torch.backends.mps.is_available()


def cpu_has_bfloat16() -> bool:
    """Return whether the CPU multiplies bfloat16 natively; unknown counts as no."""
    asks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, ask, bool)()) for ask in asks)

"""What ``doctor`` says of cards: what they can do, and whether their driver fits torch.

Only what can be asked without other packages, and nothing here starts a computation.
"""

from __future__ import annotations

import ctypes
import importlib.util
import platform
import re
from pathlib import Path
from typing import Any

import torch

from napari_histodistill.students.device import (
    cuda_has_bfloat16,
    cuda_has_float16,
    cuda_has_tf32,
)

DRIVER = Path("/proc/driver/nvidia/version")
GIB = 2**30
_NO_KERNELS = (
    "; this torch cannot use it: it was built without kernels for that compute "
    "capability, so install a build of torch that has them, or choose --device cpu"
)
_DECODERS = {
    "NVDEC": (("libnvcuvid.so.1", "nvcuvid.dll"), ()),
    "nvJPEG": (("libnvjpeg.so.13", "libnvjpeg.so.12"), ("nvidia.nvjpeg",)),
    "nvImageCodec": ((), ("nvidia.nvimgcodec",)),
}


def cards_here() -> list[dict[str, Any]]:
    """Return what every CUDA card can do, in torch's order."""
    if not torch.cuda.is_available():
        return []
    return [_card(index) for index in range(torch.cuda.device_count())]


def _card(index: int) -> dict[str, Any]:
    free, total = torch.cuda.mem_get_info(index)
    major, minor = torch.cuda.get_device_capability(index)
    native = {
        "float16": cuda_has_float16(index),
        "bfloat16": cuda_has_bfloat16(index),
        "TF32": cuda_has_tf32(f"cuda:{index}"),
    }
    return {
        "name": torch.cuda.get_device_name(index),
        "device": f"cuda:{index}",
        "memory_gib": round(total / GIB, 1),
        "free_gib": round(free / GIB, 1),
        "capability": f"{major}.{minor}",
        "has_kernels": any(
            _runs(built, major, minor) for built in torch.cuda.get_arch_list()
        ),
        "native": [name for name, has in native.items() if has],
    }


def _runs(built: str, major: int, minor: int) -> bool:
    """Whether a card runs what torch was built for: ``sm_90a``, ``compute_120``.

    Kernels run within a major version, code to be compiled on any later card; what is
    marked with a letter uses what only that card has.
    """
    found = re.fullmatch(r"(sm|compute)_(\d+)(\d)([a-z]?)", built)
    if found is None:
        return False
    kind, letter = found[1], found[4]
    its, card = (int(found[2]), int(found[3])), (major, minor)
    if letter:
        return its == card
    return its <= card and (kind == "compute" or its[0] == major)


def driver_here() -> dict[str, Any]:
    """Return the NVIDIA driver's version, the CUDA it can do, and torch's own.

    Each is None where it is not known: outside Linux, or without such a driver.
    """
    ask = getattr(torch._C, "_cuda_getDriverVersion", None)
    number = int(ask()) if ask is not None else 0
    return {
        "driver": _driver(),
        "driver_cuda": f"{number // 1000}.{number % 1000 // 10}" if number else None,
        "torch_cuda": torch.version.cuda,
    }


def _driver() -> str | None:
    try:
        found = re.search(r"\b\d{3}\.\d+(\.\d+)?\b", DRIVER.read_text(errors="replace"))
    except OSError:
        return None
    return found[0] if found else None


def decoders_here() -> list[str]:
    """Return names of decoders on a card that are installed; none of them is used."""
    return [
        name
        for name, (libraries, packages) in _DECODERS.items()
        if any(map(_loads, libraries)) or any(map(_is_installed, packages))
    ]


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # its parent is not there
        return False


def mps_here() -> dict[str, Any]:
    """Return whether torch sees Apple's GPU, and the memory it may take (GiB)."""
    if not torch.backends.mps.is_available():
        return {"is_there": False, "memory_gib": None}
    memory = torch.mps.recommended_max_memory()
    return {"is_there": True, "memory_gib": round(memory / GIB, 1)}


def accelerators() -> dict[str, Any]:
    """Return all of it, for ``doctor``."""
    return {
        "cards": cards_here(),
        **driver_here(),
        "decoders": decoders_here(),
        "mps": mps_here(),
    }


def accelerator_lines(found: dict[str, Any]) -> list[str]:
    """Return what a person reads of it."""
    lines = [_card_words(card) for card in found["cards"]]
    if not lines:
        lines.append(f"no CUDA card that torch can use{_why_none(found)}")
    if found["cards"]:
        lines.append(_driver_words(found))
        names = " and ".join(found["decoders"]) or "none found"
        lines.append(f"decoding on the card: {names}; slides are decoded by the CPU")
    lines.append(_mps_words(found["mps"]))
    return lines


def _card_words(card: dict[str, Any]) -> str:
    native = " and ".join(card["native"]) or "only float32"
    return (
        f"{card['device']} · {card['name']}: {card['free_gib']} of "
        f"{card['memory_gib']} GiB free, compute capability {card['capability']}, "
        f"{native} in hardware{'' if card['has_kernels'] else _NO_KERNELS}"
    )


def _why_none(found: dict[str, Any]) -> str:
    if found["torch_cuda"] is None:
        seen = f", though driver {found['driver']} is here" if found["driver"] else ""
        return f": this torch was built without CUDA{seen}"
    if found["driver"] is None and found["driver_cuda"] is None:
        return ": no NVIDIA driver was found"
    if _is_older(found["driver_cuda"], found["torch_cuda"]):
        return f": {_driver_words(found)}"
    return f", though driver {found['driver'] or 'of NVIDIA'} is here"


def _driver_words(found: dict[str, Any]) -> str:
    driver = f"driver {found['driver'] or 'of unknown version'}"
    can = found["driver_cuda"]
    if can is None:
        return f"{driver}; torch was built for CUDA {found['torch_cuda']}"
    words = f"{driver} (CUDA {can}), torch was built for CUDA {found['torch_cuda']}"
    if _is_older(can, found["torch_cuda"]):
        return f"{words}: update the driver, or install torch for CUDA {can} or older"
    return words


def _is_older(one: str | None, other: str | None) -> bool:
    """Whether a major version is older: within one, any driver runs any torch."""
    if one is None or other is None:
        return False
    return int(one.partition(".")[0]) < int(other.partition(".")[0])


def _mps_words(mps: dict[str, Any]) -> str:
    if mps["is_there"]:
        return (
            f"MPS · Apple GPU: up to {mps['memory_gib']} GiB, computing in float32; "
            "written for, but never run by us"
        )
    if platform.system() == "Darwin":
        return "MPS: torch sees no Apple GPU"
    return "MPS: only on Apple silicon"

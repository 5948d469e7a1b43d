"""A guard against two copies of LLVM in one process: Mesa's and triton's.

Where Mesa draws OpenGL with LLVM (software rendering, virtual machines, remote
desktops, AMD cards), napari's canvas has loaded ``libLLVM``. torchvision then imports
``torch._dynamo``, which imports triton if it is installed, and triton's own LLVM
crashes the process while loading (seen with the triton of torch 2.14 and libLLVM 15).
Students do not need triton, so in that situation, and only then, its import is refused.
To torch the refusal means "not installed", the normal case on macOS and Windows.
"""

from __future__ import annotations

import sys
from pathlib import Path

_MAPS = Path("/proc/self/maps")


def keep_triton_out() -> bool:
    """Block the import of triton if it would crash this process.

    Returns
    -------
    bool
        Whether the import is blocked from now on.
    """
    if "triton" in sys.modules:
        # Loaded before the canvas, which works; or refused by an earlier call.
        return sys.modules["triton"] is None
    if not mesa_uses_llvm():
        return False
    sys.modules["triton"] = None  # type: ignore[assignment]
    return True


def mesa_uses_llvm(maps: Path = _MAPS) -> bool:
    """Return whether a shared LLVM is loaded in this process (False but on Linux)."""
    try:
        return "libLLVM" in maps.read_text("utf-8", errors="replace")
    except OSError:
        return False

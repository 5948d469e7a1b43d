"""Keep two copies of LLVM apart: Mesa's, which draws, and triton's, which compiles.

Where OpenGL is drawn by Mesa with LLVM (software rendering, virtual machines, remote
desktops, AMD cards), napari's canvas has loaded ``libLLVM``. torchvision then imports
``torch._dynamo``, which imports triton if it is installed, whose own LLVM crashes the
process while it is loaded (seen with triton of torch 2.14 and libLLVM 15). Students
need no triton, so in that situation, and only then, importing it is refused: torch
takes the refusal for "not installed", which is what it does on macOS and Windows.
"""

from __future__ import annotations

import sys
from pathlib import Path

_MAPS = Path("/proc/self/maps")


def keep_triton_out() -> bool:
    """Refuse to import triton if that would crash this process.

    Returns
    -------
    bool
        Whether it is refused from now on.
    """
    if "triton" in sys.modules:
        # Loaded before the canvas, which works; or refused by an earlier call.
        return sys.modules["triton"] is None
    if not mesa_uses_llvm():
        return False
    sys.modules["triton"] = None  # type: ignore[assignment]
    return True


def mesa_uses_llvm(maps: Path = _MAPS) -> bool:
    """Whether a shared LLVM is loaded in this process (Linux; elsewhere False)."""
    try:
        return "libLLVM" in maps.read_text("utf-8", errors="replace")
    except OSError:
        return False

"""The C library's heap, where torch computes on a CPU.

torch asks for memory for the numbers of every layer and gives it back after the next.
glibc hands what is larger than 32 MiB, and what lies at the end of its heaps, to the
system at once, which zeroes it page by page when the next layer asks for it: up to two
fifths of a run's processor time, more or less as chance lays the heap out (measured in
``tests/bench/RESULTS.md``).
"""

from __future__ import annotations

import ctypes
import os

MIB = 2**20

KEPT = {
    # <malloc.h>: number of the parameter, what it is set to.
    "M_MMAP_THRESHOLD": (-3, 256 * MIB),
    "M_TRIM_THRESHOLD": (-1, 512 * MIB),
    # No heap of a thread is unmapped as long as it could be filled up by this.
    "M_TOP_PAD": (-2, 128 * MIB),
    # Threads share a heap, or each would keep numbers of its own.
    "M_ARENA_MAX": (-8, 1),
}
"""What :func:`keep_freed_memory` sets, in mallopt(3)'s words."""

_BY_HAND = ("MALLOC_ARENA_", "MALLOC_MMAP_", "MALLOC_TOP_PAD_", "MALLOC_TRIM_")


def keep_freed_memory() -> bool:
    """Let this process keep memory that torch gives back, for the next layer.

    It applies to the whole process and changes no number; may be called many times.
    Some 200 MB more stay in use after a map.

    Returns
    -------
    bool
        Whether that was set. Not where the C library is not glibc, nor where somebody
        has set malloc's behaviour by environment variables.
    """
    if "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "") or any(
        name.startswith(_BY_HAND) for name in os.environ
    ):
        return False
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018 - asks whether there is one
    except (OSError, TypeError, AttributeError):  # Windows, macOS, musl
        return False
    took = [libc.mallopt(number, to) for number, to in KEPT.values()]
    return all(took)

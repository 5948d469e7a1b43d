"""The backend that runs a student fastest on this CPU: measured once, then remembered.

The self-test takes two seconds, on tiles of the student's own size, with the backends
taking turns so that a busy moment affects them all. The result is kept in the user's
cache for the same kind of encoder, threads, versions and processor; ``histodistill
doctor`` measures again. The variable ``HISTODISTILL_CPU_BACKEND`` (``torch`` or
``openvino``) sets the backend without measuring, for machines that must all compute in
the same way.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.cache import cache_dir, cached
from napari_histodistill.errors import DeviceError, HistodistillError, InputError
from napari_histodistill.files import write_whole
from napari_histodistill.students.device import BACKENDS, through

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from napari_histodistill.students.spec import StudentSpec
    from napari_histodistill.students.student import Backend, DeviceChoice

    Build = Callable[[DeviceChoice], Backend]

MEASURE_S = 2.0
BATCH = 8
MARGIN = 1.1
"""torch, which needs no conversion, is kept unless another is faster by this factor."""

VARIABLE = "HISTODISTILL_CPU_BACKEND"
_FILE = "backends.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfTest:
    """Speed of each backend on a student's tiles.

    Attributes
    ----------
    tiles_per_s : dict of str to float
        Speed of each backend that ran.
    problems : dict of str to str
        Reason for each backend that did not.
    used : str
        Backend that is used from now on.
    measured : str
        Date of the measurement, ISO 8601.
    """

    tiles_per_s: dict[str, float]
    problems: dict[str, str]
    used: str
    measured: str

    @property
    def why(self) -> str:
        """The measured speeds, in one sentence."""
        ranked = sorted(self.tiles_per_s.items(), key=lambda item: -item[1])
        speeds = ", ".join(f"{BACKENDS[name]} {rate:.0f}" for name, rate in ranked)
        return f"Tiles per second in the self-test of {self.measured}: {speeds}."


def with_fastest(choice: DeviceChoice, spec: StudentSpec, build: Build) -> DeviceChoice:
    """Return the CPU with the backend that is fastest for this student.

    Parameters
    ----------
    choice : DeviceChoice
        The CPU.
    spec : StudentSpec
        The student's spec.
    build : callable
        Builds a backend for a choice.

    Raises
    ------
    DeviceError
        If ``HISTODISTILL_CPU_BACKEND`` is not a backend's name.
    """
    said = os.environ.get(VARIABLE, "").strip().lower()
    if said:
        if said not in BACKENDS:
            msg = f"{VARIABLE}: {said!r} is not a backend; use {' or '.join(BACKENDS)}."
            raise DeviceError(msg)
        return through(choice, said, f"{VARIABLE} says {BACKENDS[said]}.")
    if len(_installed()) == 1:
        return choice
    found = remembered(choice, spec) or measure(choice, spec, build)
    return through(choice, found.used, found.why)


def remembered(choice: DeviceChoice, spec: StudentSpec) -> SelfTest | None:
    """Return the earlier measurement in the same circumstances, or None."""
    entry = kept(_FILE).get(_circumstances(choice, spec))
    try:
        found = SelfTest(**entry) if isinstance(entry, dict) else None
    except TypeError:  # stored by another version
        return None
    return found if found is not None and found.used in _installed() else None


def measure(choice: DeviceChoice, spec: StudentSpec, build: Build) -> SelfTest:
    """Measure every installed backend, and remember the fastest.

    Parameters
    ----------
    choice : DeviceChoice
        The CPU.
    spec : StudentSpec
        The student's spec.
    build : callable
        Builds a backend for a choice.

    Raises
    ------
    HistodistillError
        If not even torch can run the student.
    """
    ready: dict[str, Backend] = {}
    problems: dict[str, str] = {}
    for name in _installed():
        try:
            ready[name] = build(replace(choice, backend=name))
        except HistodistillError as error:
            if name == "torch":
                raise
            problems[name] = str(error)
    rates = _in_turns(ready, spec.tile_px)
    best = max(rates, key=lambda name: rates[name])
    used = best if rates[best] >= MARGIN * rates["torch"] else "torch"
    found = SelfTest(
        tiles_per_s={name: round(rate, 1) for name, rate in rates.items()},
        problems=problems,
        used=used,
        measured=datetime.now(UTC).date().isoformat(),
    )
    keep(_FILE, _circumstances(choice, spec), asdict(found))
    return found


def _in_turns(ready: Mapping[str, Backend], tile_px: int) -> dict[str, float]:
    tiles = np.random.default_rng(0).integers(
        0, 256, (BATCH, tile_px, tile_px, 3), dtype=np.uint8
    )
    spent = dict.fromkeys(ready, 0.0)
    for backend in ready.values():
        backend.embed(tiles)  # not timed: the first call sets things up
    rounds = 0
    while rounds < 2 or sum(spent.values()) < MEASURE_S:
        rounds += 1
        for name, backend in ready.items():
            start = time.perf_counter()
            backend.embed(tiles)
            spent[name] += time.perf_counter() - start
    return {name: rounds * BATCH / seconds for name, seconds in spent.items()}


def _installed() -> tuple[str, ...]:
    from napari_histodistill.students.backends.openvino import is_installed

    return ("torch", "openvino") if is_installed() else ("torch",)


def _circumstances(choice: DeviceChoice, spec: StudentSpec) -> str:
    """Return a digest of everything that decides which backend is faster."""
    import torch

    facts = [
        *(spec.backbone, spec.backbone_options, spec.tile_px, spec.input_px),
        *(choice.precision, torch.get_num_threads(), processor(), os.cpu_count()),
        *(importlib.metadata.version(name) for name in _installed()),
    ]
    return hashlib.sha256(json.dumps(facts, default=str).encode()).hexdigest()[:32]


def processor() -> str:
    """Return the processor's name: machines may share a home folder."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text(errors="replace").splitlines()
        models = [line for line in lines if line.startswith("model name")]
        return models[0] if models else platform.machine()
    return platform.processor() or platform.machine()


def kept(file: str) -> dict[str, Any]:
    """Return the measurements in a file of the cache, by their circumstances."""
    try:
        content = json.loads(cached(file).read_text("utf-8"))
    except (OSError, ValueError, RecursionError, InputError):
        return {}
    return content if isinstance(content, dict) else {}


def keep(file: str, key: str, found: dict[str, Any]) -> None:
    """Store a measurement; if the cache cannot be written, the next run repeats it."""
    content = {**kept(file), key: found}
    with suppress(OSError, InputError):
        write_whole(cache_dir() / file, json.dumps(content, indent=2))

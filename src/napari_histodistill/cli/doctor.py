"""``doctor``: packages, device, speed and display of this installation."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from napari_histodistill import __version__
from napari_histodistill.cli.console import answering, tell
from napari_histodistill.cli.display import display_state
from napari_histodistill.cli.options import (
    DEFAULT_STUDENT,
    DeviceOption,
    JsonOption,
    StudentOption,
)
from napari_histodistill.errors import HistodistillError
from napari_histodistill.files import without_home
from napari_histodistill.running import cores

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import numpy.typing as npt

PACKAGES = (
    "numpy",
    "torch",
    "torchvision",
    "timm",
    "tifffile",
    "imagecodecs",
    "zarr",
    "dask",
    "scikit-image",
    "scikit-learn",
    "napari",
    "PyQt6",
    "PySide6",
    "openslide-python",
    "openvino",
)
MEASURE_S = 2.0
_ABSENT = 'absent (optional; often faster): pip install "napari-histodistill[openvino]"'
TILE_PX = 256


def doctor(
    student: StudentOption = DEFAULT_STUDENT,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Check this installation: device, speed, display."""
    with answering(as_json=json) as answer:
        result: dict[str, Any] = {
            "version": __version__,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "cpus": cores(),
            "packages": _versions(),
            "openslide": importlib.util.find_spec("openslide") is not None,
            "display": _display(),
        }
        problems: list[str] = []
        checks: dict[str, Callable[[], dict[str, Any]]] = {
            "cache": _cache,
            "accelerators": _accelerators,
            "decoding": _decoding,
            "model": lambda: _model(student, device),
        }
        for name, check in checks.items():
            tell(f"checking {name} …")
            result[name] = _attempt(name, check, problems)
        result["problems"] = problems
        result["ok"] = not problems
        result = _for_an_issue(result)
        answer.give(result, _text(result))
    if problems:
        raise typer.Exit(1)


def _for_an_issue(found: Any) -> Any:
    """Return what was found without the user's name: people paste it into issues."""
    if isinstance(found, str):
        return without_home(found)
    if isinstance(found, list):
        return [_for_an_issue(one) for one in found]
    if isinstance(found, dict):
        return {key: _for_an_issue(one) for key, one in found.items()}
    return found


def _attempt(
    name: str, check: Callable[[], dict[str, Any]], problems: list[str]
) -> dict[str, Any] | None:
    """Return the result of a check, or note its problem: the others still run."""
    try:
        return check()
    except HistodistillError as error:
        problems.append(f"{name}: {error}")
    except (ImportError, OSError, AttributeError) as error:
        # Importing a broken package may raise any of these.
        problems.append(f"{name}: {type(error).__name__}: {error}")
    return None


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def _display() -> dict[str, Any]:
    state = display_state()
    return {
        "napari": state.napari,
        "qt_binding": state.binding or None,
        "screen": state.screen or None,
        "missing_packages": list(state.missing_packages),
        "apt_line": state.apt_line or None,
        "problem": state.problem or None,
    }


def _cache() -> dict[str, Any]:
    from napari_histodistill.cache import cache_dir, cache_note

    folder, note = cache_dir(), cache_note()
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"0")
    return {"folder": str(folder), "writable": not note}


def _accelerators() -> dict[str, Any]:
    from napari_histodistill.students.accelerators import accelerators

    found = accelerators()
    return found | {"chosen": _chosen_on_a_card() if found["cards"] else None}


def _chosen_on_a_card() -> dict[str, Any]:
    """Return how a run on a card of this machine would go about it."""
    from napari_histodistill.maps.reading.choice import usual_readers, why_not_processes
    from napari_histodistill.students.backends.cuda import STREAMS, wants_graphs

    readers = usual_readers(on_cpu=False)
    return {
        "lanes": STREAMS,
        "graphs": wants_graphs(),
        "resampled_on": "card",
        "readers": readers,
        "why_not_processes": why_not_processes(readers) or None,
    }


def _chosen_words(chosen: dict[str, Any]) -> str:
    graphs = "recorded as CUDA graphs" if chosen["graphs"] else "not recorded as graphs"
    why_not = chosen["why_not_processes"]
    tried = (
        f"processes are not tried: {why_not}"
        if why_not
        else "in long runs as many processes are tried, and the faster go on"
    )
    return (
        f"{chosen['lanes']} batches at a time, {graphs}; windows are resampled on the "
        f"{chosen['resampled_on']}; {chosen['readers']} threads read; {tried}"
    )


def _decoding() -> dict[str, Any]:
    """Read JPEG tiles of a pyramid made of the sample, each tile once per opening."""
    from napari_histodistill.geometry import Region
    from napari_histodistill.slides import open_slide
    from napari_histodistill.slides.tissue.writing import write_pyramid

    side = 4096
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "doctor.ome.tif"
        write_pyramid(path, _mosaic(side), mpp=0.5, tile_px=TILE_PX)
        tiles, seconds = 0, 0.0
        while seconds < MEASURE_S:
            with open_slide(path) as slide:
                start = time.perf_counter()
                for y in range(0, side, TILE_PX):
                    for x in range(0, side, TILE_PX):
                        slide.read(Region(y=y, x=x, height=TILE_PX, width=TILE_PX))
                        tiles += 1
                seconds += time.perf_counter() - start
    return {
        "what": f"JPEG tiles of {TILE_PX} px, one thread, file in memory",
        "tiles_per_s": round(tiles / seconds, 1),
    }


def _mosaic(side: int) -> npt.NDArray[np.uint8]:
    """Return the sample, mirrored from copy to copy until it fills a square."""
    import numpy as np
    from skimage.data import immunohistochemistry

    image = immunohistochemistry()
    both = np.concatenate([image, image[:, ::-1]], axis=1)
    four = np.concatenate([both, both[::-1]], axis=0)
    times = -(-side // four.shape[0])
    whole: npt.NDArray[np.uint8] = np.tile(four, (times, times, 1))[:side, :side]
    return np.ascontiguousarray(whole)


def _model(name: str, device: str) -> dict[str, Any]:
    import numpy as np

    from napari_histodistill.students import load_student
    from napari_histodistill.students.bundle import measure_student
    from napari_histodistill.students.device import choose_device

    test = None
    if choose_device(device).name == "cpu":
        test = measure_student(name)
    student = load_student(name, device=device)
    on_cpu = student.device.name.startswith("cpu")
    shape = (16 if on_cpu else 128, student.spec.tile_px, student.spec.tile_px, 3)
    batch = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    student.embed(batch)  # untimed: the first call also sets things up
    tiles, start = 0, time.perf_counter()
    while (seconds := time.perf_counter() - start) < MEASURE_S:
        student.embed(batch)
        tiles += len(batch)
    return {
        "student": student.name,
        "device": student.device.name,
        "device_label": student.device.label,
        "reason": student.device.reason,
        "precision": student.device.precision,
        "arithmetic": student.arithmetic,
        "tile_px": student.spec.tile_px,
        "backend": student.device.backend,
        "backends": None if test is None else asdict(test),
        "tiles_per_s": round(tiles / seconds, 1),
    }


def _text(result: dict[str, Any]) -> str:
    versions = ", ".join(f"{k} {v}" for k, v in result["packages"].items() if v)
    absent = ", ".join(k for k, v in result["packages"].items() if not v)
    display = result["display"]
    lines = [
        f"histodistill {result['version']}, Python {result['python']}, "
        f"{result['cpus']} CPUs, {sys.platform}",
        f"  packages   {versions}",
        f"  absent     {absent or 'nothing'}",
        f"  OpenSlide  {'present' if result['openslide'] else 'absent (optional)'}",
        f"  display    {display['problem'] or 'ready: ' + display['screen']}",
    ]
    if result["cache"]:
        kept = "writable" if result["cache"]["writable"] else "temporary"
        lines.append(f"  cache      {result['cache']['folder']} ({kept})")
    if result["decoding"]:
        found = result["decoding"]
        lines.append(
            f"  decoding   {found['tiles_per_s']:.0f} tiles/s ({found['what']})"
        )
    if result["accelerators"]:
        lines += _card_lines(result["accelerators"])
    if result["model"]:
        found = result["model"]
        lines += [
            f"  device     {found['device_label']}: {found['reason']}",
            f"  computes   in {found['arithmetic']}",
            f"  model      {found['tiles_per_s']:.0f} tiles/s ({found['student']}, "
            f"{found['tile_px']} px)",
        ]
        lines += _backend_lines(found)
    lines += [f"  PROBLEM    {problem}" for problem in result["problems"]]
    return "\n".join(lines)


def _card_lines(found: dict[str, Any]) -> list[str]:
    """Return lines on cards, and on what a run would do with one."""
    from napari_histodistill.students.accelerators import accelerator_lines

    lines = [f"  card       {words}" for words in accelerator_lines(found)]
    if found["chosen"]:
        lines.append(f"  on a card  {_chosen_words(found['chosen'])}")
    return lines


def _backend_lines(found: dict[str, Any]) -> list[str]:
    """Return lines on the speed of the CPU's backends, and which is used and why."""
    from napari_histodistill.students.device import BACKENDS

    test = found["backends"]
    if test is None:
        return []
    lines = []
    for name, words in BACKENDS.items():
        if name in test["tiles_per_s"]:
            speed = f"{test['tiles_per_s'][name]:.0f} tiles/s"
            lines.append(f"  backend    {words}: {speed}{_used(name, found)}")
        else:
            why = test["problems"].get(name, _ABSENT)
            lines.append(f"  backend    {words}: {why}")
    return lines


def _used(name: str, found: dict[str, Any]) -> str:
    if name != found["backend"]:
        return ""
    if name != found["backends"]["used"]:
        return ", used because --device says so"
    return ", used from now on (the fastest)"

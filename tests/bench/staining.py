"""What stain normalisation does to accuracy

A frozen student (``imagenet-lite0``), a probe on the tiles of three folds, scored on
the fourth, with every case's stain left as it is or normalised towards the training
tiles of ``colon-he``. The same with each case put through a laboratory of its own
(directions turned by 8°, strengths changed by a third, both standard deviations).
Differences are of the same tiles, their intervals over cases.

Needs a labelled tile folder: ``python -m tests.bench.staining FOLDER``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_histodistill.distill.pairs.tilefolder import read_tile_folder
from napari_histodistill.distill.scoring.scores import accuracies
from napari_histodistill.errors import InputError
from napari_histodistill.slides.tissue.stain import StainFit, StainMap, fit_stains
from napari_histodistill.students import load_student
from napari_histodistill.students.bundle import load_spec
from napari_histodistill.students.probe import fit_probe

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    Pixels = npt.NDArray[np.uint8]
    Maps = dict[str, StainMap | None]

PIXELS, RESAMPLES, SEED = 50_000, 2000, 5
TURN_DEG, STRENGTH = 8.0, 0.3


def normalising(tiles: Pixels, cases: npt.NDArray[np.str_], to: StainFit) -> Maps:
    """Fit every case; None where its stain cannot be told (it is left as it is)."""
    maps: Maps = {}
    for case in np.unique(cases):
        pixels = tiles[cases == case].reshape(-1, 3)
        try:
            fit = fit_stains(pixels[:: max(1, len(pixels) // PIXELS)])
            maps[str(case)] = StainMap.between(fit, to)
        except InputError:
            maps[str(case)] = None
    return maps


def laboratories(cases: npt.NDArray[np.str_], reference: StainFit) -> Maps:
    """Draw a laboratory for every case."""
    rng = np.random.default_rng(SEED)

    def turned(direction: tuple[float, float, float]) -> tuple[float, float, float]:
        v, side = np.array(direction), rng.normal(size=3)
        side -= side @ v * v
        angle = np.radians(abs(rng.normal(0, TURN_DEG)))
        v = np.cos(angle) * v + np.sin(angle) * side / np.linalg.norm(side)
        v = np.clip(v, 0.02, None)
        x, y, z = (float(n) for n in v / np.linalg.norm(v))
        return x, y, z

    maps: Maps = {}
    for case in np.unique(cases):
        h, e = (float(s * np.exp(rng.normal(0, STRENGTH))) for s in reference.strengths)
        red, green, blue = (
            250 + float(np.clip(rng.normal(0, 4), -8, 5)) for _ in "rgb"
        )
        there = StainFit(
            turned(reference.haematoxylin),
            turned(reference.eosin),
            (h, e),
            (red, green, blue),
        )
        maps[str(case)] = StainMap.between(reference, there)
    return maps


def through(tiles: Pixels, cases: npt.NDArray[np.str_], maps: Maps) -> Pixels:
    """Return the tiles, each put through its case's map."""
    out = np.array(tiles)
    for case, stains in maps.items():
        if stains is not None:
            out[cases == case] = stains.apply(tiles[cases == case])
    return out


def report(folder: Path, tell: Callable[[str], None]) -> None:
    """Embed, fit, score and tell."""
    found = read_tile_folder(folder)
    names, truth = np.unique(found.labels(), return_inverse=True)
    cases, folds = np.asarray(found.case_ids()), np.asarray(found.folds())
    student = load_student("imagenet-lite0", device="cpu")
    px = student.spec.tile_px
    tiles = np.stack([found.read(tile, px)[0] for tile in found.tiles])
    stain = load_spec("colon-he").stain
    assert stain is not None
    to = StainFit(stain.haematoxylin, stain.eosin, stain.strengths, stain.glass)
    shifted = through(tiles, cases, laboratories(cases, to))
    kinds = {"as they are": tiles, "shifted": shifted}
    for kind, pixels in list(kinds.items()):
        maps = normalising(pixels, cases, to)
        tell(f"{kind}: {sum(m is None for m in maps.values())} cases refused")
        kinds[f"{kind}, normalised"] = through(pixels, cases, maps)
    seen = {
        kind: np.concatenate(
            [student.embed(pixels[k : k + 64]) for k in range(0, len(pixels), 64)]
        )
        for kind, pixels in kinds.items()
    }
    predicted = predictions(seen, truth, cases, folds)
    tell(f"{len(truth)} tiles, {len(np.unique(cases))} cases, {len(names)} classes")
    compare(predicted, truth, cases, tell)


def predictions(
    seen: dict[str, npt.NDArray[np.float32]],
    truth: npt.NDArray[np.intp],
    cases: npt.NDArray[np.str_],
    folds: npt.NDArray[np.str_],
) -> dict[str, npt.NDArray[np.intp]]:
    """Return for each kind of pixels what probes of the other folds say."""
    predicted: dict[str, npt.NDArray[np.intp]] = {}
    for trained, tested in (
        ("as they are", ("as they are", "shifted")),
        ("as they are, normalised", ("as they are, normalised", "shifted, normalised")),
    ):
        for kind in tested:
            predicted[kind] = np.zeros(len(truth), np.intp)
        for fold in np.unique(folds):
            mine = folds == fold
            x, y = seen[trained][~mine], truth[~mine]
            head = fit_probe(x, y, groups=cases[~mine], seed=0).head
            for kind in tested:
                scores = head.probabilities(seen[kind][mine])
                predicted[kind][mine] = scores.argmax(axis=1)
    return predicted


def compare(
    predicted: dict[str, npt.NDArray[np.intp]],
    truth: npt.NDArray[np.intp],
    cases: npt.NDArray[np.str_],
    tell: Callable[[str], None],
) -> None:
    """Tell accuracies, and differences with intervals over cases."""
    rng = np.random.default_rng(0)
    of_case = [np.flatnonzero(cases == c) for c in np.unique(cases)]
    many = len(of_case)
    draws = [
        np.concatenate([of_case[k] for k in rng.integers(len(of_case), size=many)])
        for _ in range(RESAMPLES)
    ]
    for kind in ("as they are", "shifted"):
        bare, normal = predicted[kind], predicted[f"{kind}, normalised"]
        for what, p in (("bare", bare), ("normalised", normal)):
            plain, balanced = accuracies(truth, p)
            tell(f"{kind}, {what}: accuracy {plain:.3f}, balanced {balanced:.3f}")
        differences = np.array(
            [
                np.subtract(*(accuracies(truth[d], p[d]) for p in (normal, bare)))
                for d in draws
            ]
        )
        low, high = np.percentile(differences, [2.5, 97.5], axis=0)
        mean = np.subtract(accuracies(truth, normal), accuracies(truth, bare))
        for k, name in enumerate(("accuracy", "balanced accuracy")):
            tell(
                f"{kind}, normalised minus bare, {name}: {mean[k]:+.3f} "
                f"({low[k]:+.3f} to {high[k]:+.3f})"
            )


if __name__ == "__main__":
    report(Path(sys.argv[1]), lambda line: print(line, flush=True))

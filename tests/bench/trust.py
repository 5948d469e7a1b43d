"""Like, unlike, or too little seen: which distance, which statistic, which limits.

What is asked of `colon-he`: from a few squares of a slide, does it show what the
student was trained on? The protocol (distances were tried in scratch work before it was
written down, so the figures are those of development data):

- **Own**: EBHI, 1,782 tiles of 271 cases. Statistics are fitted on four fifths of the
  cases and judge the last fifth, in turn (`FOLDS`, dealt by case, seed 0). The network
  of `colon-he` saw every case, so features of its own late layers lie too near for own
  tiles; those of the ImageNet start, and the first two stages, which training left
  alone, saw none. *Other scanners* and *soft* own tiles should not be called unlike.
- **Foreign**: `trust_sets.py`; the statistics are those of all own cases. Organs
  first; other stains, scales, blur, ink and glass besides.
- A **distance** is judged tile by tile (area under the curve against own held-out
  tiles; goal .95 on every organ), and by slides: how many standard deviations between
  own cases (τ) the median of the set's log distance lies beyond the cases' middle.
- A **verdict** (`verdict`) is simulated on mosaics of 10 to 300 squares, drawn with
  replacement from one held-out case of at least five tiles, from one fold's cases
  mixed, or from one foreign slide, patient or section. Goals: every organ unlike, at
  most 5 % of own mosaics.
- Intervals: 95 %, bootstrap over cases (over squares where a set is one slide).

Chosen after a look at these sets, so that slides kept aside have to judge it: the
stage, thirds in place of the median, 5 τ (beyond nearly all other scanners), 64 own
directions and 20 cases (from the table of few cases).

The chosen distance, its statistics and the rules on looks are the program's own
(``students/trust.py``, ``students/references/``, ``slides/tissue/looks.py``); only
what was tried beside them stands here. `as_program` asks for the program's verdict,
looks included.

``python -m tests.bench.trust DATA --cache FOLDER [--json FILE]``: five minutes of one
core with what the cache holds; without, some 15,000 passes of the network besides. A
run that is stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import rankdata

from napari_histodistill.slides.tissue.looks import look_of, oddest_look
from napari_histodistill.students import load_student
from napari_histodistill.students.references.case_limits import (
    HIGH,
    LOW,
    CaseLimits,
    lies_in,
    lies_out,
)
from napari_histodistill.students.references.fitting import fit_reference, folds_of
from napari_histodistill.students.token_pooling import pool_tokens
from napari_histodistill.students.trust import (
    ENOUGH,
    ENOUGH_CASES,
    SeenSquares,
    Verdict,
    judge,
)
from tests.bench.trust_distances import mahalanobis, neighbours, relative
from tests.bench.trust_sets import PX, TileSet, other_sets, own_tiles
from tests.bench.trust_table import as_markdown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy.typing as npt
    import torch

    from napari_histodistill.students.references.fitting import TrustReference
    from napari_histodistill.students.trust import SlideTrust

    Floats = npt.NDArray[np.float64]
    Features = Mapping[str, Floats]
    Fit = Callable[[Floats, npt.NDArray[np.intp]], Callable[[Floats], Floats]]

FOLDS, SEED, RESAMPLES, MOSAICS = 5, 0, 200, 400
SIZES = (10, 20, 50, 100, 300)
PROGRAM_MOSAICS = 100
FEW = (5, 10, 20, 40, 100, 200)
NETWORKS = {"start": "imagenet-lite0", "own": "colon-he"}
CHOSEN, BEFORE = "start, stage 6", "own, last"
STAGES = tuple(range(1, 7))
SIDE = 4
"""Tiles on the edge of a window, for tokens."""


# --- features -----------------------------------------------------------------------


class Embedder:
    """Means and spreads of every stage's feature map, and embeddings; kept on disk."""

    def __init__(self, network: str, cache: Path) -> None:
        self.student = load_student(
            NETWORKS[network], device="cpu:torch", precision="float32"
        )
        self._cache, self._network = cache, network
        self.seconds, self.count = 0.0, 0

    def __call__(self, tiles: npt.NDArray[np.uint8]) -> Features:
        """Return features by name (``m3``: means of stage 3), each ``(n, width)``."""
        mark = hashlib.sha256(np.ascontiguousarray(tiles).tobytes()).hexdigest()[:16]
        path = self._cache / f"{self._network}-{mark}.npz"
        if not path.is_file():
            began = time.process_time()
            found = self._embed(tiles)
            self.seconds += time.process_time() - began
            self.count += len(tiles)
            part = path.with_suffix(".part.npz")
            np.savez(part, **found)
            part.replace(path)
        with np.load(path) as stored:
            return {name: stored[name].astype(np.float64) for name in stored.files}

    def _embed(self, tiles: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[Any]]:
        module: Any = getattr(self.student.backend, "module")  # noqa: B009
        parts: dict[str, list[npt.NDArray[Any]]] = {}

        def keep(stage: int, _module: Any, _given: Any, maps: torch.Tensor) -> None:
            parts.setdefault(f"m{stage}", []).append(maps.mean((2, 3)).numpy())
            spread = maps.std((2, 3)).numpy()
            parts.setdefault(f"s{stage}", []).append(np.log(spread + 1e-3))

        hooks = [
            module.blocks[k].register_forward_hook(partial(keep, k)) for k in STAGES
        ]
        try:
            for k in range(0, len(tiles), 8):
                batch = np.ascontiguousarray(tiles[k : k + 8])
                parts.setdefault("final", []).append(self.student.embed(batch))
        finally:
            for hook in hooks:
                hook.remove()
        return {name: np.concatenate(values) for name, values in parts.items()}


# --- distances ----------------------------------------------------------------------

_pooled: Fit = partial(mahalanobis, by_class=False)
_by_class: Fit = partial(mahalanobis, by_class=True)
_before: Fit = partial(mahalanobis, by_class=False, most=64, scaled=False)
_nearest: Fit = partial(neighbours, prototypes=300)


def _stage(network: str, *stages: int) -> tuple[str, ...]:
    return tuple(f"{network}/{kind}{k}" for k in stages for kind in "ms")


METHODS: dict[str, tuple[tuple[str, ...], Fit]] = {
    BEFORE: (("own/final",), _before),
    "own, last, by class": (("own/final",), _by_class),
    "own, last, relative": (("own/final",), relative),
    "own, last, 300 prototypes": (("own/final",), _nearest),
    **{f"own, stage {k}": (_stage("own", k), _pooled) for k in STAGES},
    "own, stages 2-5, by class": (_stage("own", 2, 3, 4, 5), _by_class),
    "start, last": (("start/final",), _pooled),
    "start, last, by class": (("start/final",), _by_class),
    "start, last, relative": (("start/final",), relative),
    "start, last, 300 prototypes": (("start/final",), _nearest),
    **{f"start, stage {k}": (_stage("start", k), _pooled) for k in STAGES},
    "start, stage 6, by class": (_stage("start", 6), _by_class),
    "start, stage 6, 300 prototypes": (_stage("start", 6), _nearest),
    "start, stages 5-6": (_stage("start", 5, 6), _pooled),
    "start 6 and own 6": ((*_stage("start", 6), *_stage("own", 6)), _pooled),
}


def log_distances(
    sets: Mapping[str, Features], method: str, labels: Any, fold: Any
) -> dict[str, Floats]:
    """Return log distances by set; own tiles' from statistics without their fold."""
    names, fit = METHODS[method]
    values = {
        name: np.concatenate([features[n] for n in names], axis=1)
        for name, features in sets.items()
    }
    own = values["own"]
    found = np.empty(len(own))
    for k in range(FOLDS):
        there = fold != k
        found[~there] = fit(own[there], labels[there])(own[~there])
    whole = fit(own, labels)
    distances = {n: found if n == "own" else whole(v) for n, v in values.items()}
    return {n: np.log(np.maximum(d, 1e-9)) for n, d in distances.items()}


def by_logits(sets: Mapping[str, Features], *, energy: bool) -> dict[str, Floats]:
    """Return the energy (Liu et al. 2020), or minus the largest logit."""
    head = load_student("colon-he", device="cpu:torch").head
    assert head is not None
    found = {}
    for name, features in sets.items():
        logits = features["own/final"] @ head.weight.T + head.bias
        top = logits.max(1)
        rest = np.log(np.exp(logits - top[:, None]).sum(1)) if energy else 0
        found[name] = -(top + rest)
    return found


# --- slides -------------------------------------------------------------------------


def verdict(values: Floats, low: CaseLimits, high: CaseLimits) -> str:
    """Return like, unlike or too little for a slide's log distances."""
    if lies_out(values, low):
        return "unlike"
    enough = len(values) >= ENOUGH and high.cases >= ENOUGH_CASES
    return "like" if lies_in(values, high) and enough else "too little"


def simulate(
    logs: Mapping[str, Floats], sets: Mapping[str, TileSet], fold: Any, size: int
) -> dict[str, tuple[float, float]]:
    """Return shares of mosaics called unlike and like, by set."""
    rng = np.random.default_rng((SEED, size))
    own, cases = logs["own"], sets["own"].cases
    without = [_both(own[fold != k], cases[fold != k]) for k in range(FOLDS)]
    whole = _both(own, cases)
    names, counts = np.unique(cases, return_counts=True)
    large = names[counts >= 5]
    said: dict[str, list[str]] = {"one own case": [], "own cases, mixed": []}
    for _ in range(MOSAICS):
        mine = np.flatnonzero(cases == rng.choice(large))
        picked = own[rng.choice(mine, size)]
        said["one own case"].append(verdict(picked, *without[fold[mine[0]]]))
        k = int(rng.integers(FOLDS))
        picked = own[rng.choice(np.flatnonzero(fold == k), size)]
        said["own cases, mixed"].append(verdict(picked, *without[k]))
    for name, tiles in sets.items():
        if name == "own":
            continue
        groups, sizes = np.unique(tiles.cases, return_counts=True)
        groups = groups[sizes >= 5]  # one tile a case: those sets are mixed
        said[name] = []
        for _ in range(MOSAICS // 2):
            among = np.arange(len(tiles.cases))
            if len(groups):
                among = np.flatnonzero(tiles.cases == rng.choice(groups))
            said[name].append(verdict(logs[name][rng.choice(among, size)], *whole))
    return {name: _shares(words) for name, words in said.items()}


def _both(values: Floats, cases: npt.NDArray[Any]) -> tuple[CaseLimits, CaseLimits]:
    return CaseLimits.of(values, cases, LOW), CaseLimits.of(values, cases, HIGH)


def auc(own: Floats, other: Floats) -> float:
    """Return how often another's value lies above an own one."""
    ranks = rankdata(np.concatenate([own, other]))[len(own) :]
    n, m = len(own), len(other)
    return float((ranks.sum() - m * (m + 1) / 2) / (n * m))


def auc_interval(
    own: Floats, own_cases: Any, other: Floats, cases: Any
) -> tuple[float, float]:
    """Return 95 % of the area's bootstrap over cases."""
    rng = np.random.default_rng(SEED)
    groups = cases if len(np.unique(cases)) > 1 else np.arange(len(cases))

    def drawn(which: Any) -> npt.NDArray[np.intp]:
        names, member = np.unique(which, return_inverse=True)
        rows = [np.flatnonzero(member == k) for k in range(len(names))]
        return np.concatenate(
            [rows[k] for k in rng.integers(len(names), size=len(names))]
        )

    areas = [auc(own[drawn(own_cases)], other[drawn(groups)]) for _ in range(RESAMPLES)]
    low, high = np.percentile(areas, [2.5, 97.5])
    return float(low), float(high)


# --- odd causes, tokens -------------------------------------------------------------


def with_few_cases(
    tiles: Mapping[str, TileSet], sets: Mapping[str, Features], labels: Any
) -> dict[str, dict[str, tuple[float, float]]]:
    """Return shares called unlike and like where few cases were trained on; 50 squares.

    Cases are drawn twelve times; everything is fitted to them alone. *Own* mosaics are
    of one case that was not drawn.
    """
    names, fit = METHODS[CHOSEN]
    values = {
        n: np.concatenate([features[k] for k in names], axis=1)
        for n, features in sets.items()
    }
    cases = tiles["own"].cases
    known, sizes = np.unique(cases, return_counts=True)
    large, rng = known[sizes >= 5], np.random.default_rng(SEED)
    shown = ["own", *(n for n, t in tiles.items() if t.kind in ("organ", "near"))]
    table = {}
    for count in FEW:
        said: dict[str, list[str]] = {name: [] for name in shown}
        for _ in range(12):
            drawn = np.isin(cases, rng.choice(known, count, replace=False))
            mine, whose = values["own"][drawn], cases[drawn]
            fold, logs = folds_of(whose), np.empty(len(mine))
            for k in np.unique(fold):
                there = fold != k
                distance = fit(mine[there], labels[drawn][there])
                logs[~there] = np.log(distance(mine[~there]))
            limits, distance = _both(logs, whose), fit(mine, labels[drawn])
            for name in shown:
                far = np.log(distance(values[name]))
                for _ in range(10):
                    among = np.arange(len(far))
                    if name == "own":
                        other = rng.choice(np.setdiff1d(large, whose))
                        among = np.flatnonzero(cases == other)
                    said[name].append(verdict(rng.choice(far[among], 50), *limits))
        table[f"{count} cases"] = {n: _shares(words) for n, words in said.items()}
    return table


def _shares(words: list[str]) -> tuple[float, float]:
    return words.count("unlike") / len(words), words.count("like") / len(words)


def windows_of(tiles: TileSet, most: int) -> tuple[npt.NDArray[np.uint8], list[int]]:
    """Return windows of 4 × 4 tiles of one case, and which tiles they hold."""
    windows, rows = [], []
    for case in np.unique(tiles.cases):
        mine = np.flatnonzero(tiles.cases == case)
        if len(mine) < 5:
            continue
        held = np.resize(mine, SIDE**2)
        square = tiles.tiles[held].reshape(SIDE, SIDE, PX, PX, 3)
        windows.append(square.transpose(0, 2, 1, 3, 4).reshape(SIDE * PX, -1, 3))
        rows += held.tolist()
    return np.array(windows[:most]), rows[: most * SIDE**2]


def token_embeddings(embedder: Embedder, windows: npt.NDArray[np.uint8]) -> Floats:
    """Return ``(16 n, dim)``: tokens averaged over each tile of the windows."""
    stride = embedder.student.spec.token_stride_px
    assert stride is not None
    centres = (np.arange(SIDE) + 0.5) * PX
    found = []
    for window in windows:
        pooled = pool_tokens(
            embedder.student.tokens(window[np.newaxis])[0],
            stride_px=stride,
            tile_px=PX,
            centers_y_px=centres,
            centers_x_px=centres,
        )
        found.append(pooled.reshape(SIDE**2, -1))
    return np.concatenate(found).astype(np.float64)


def spread(
    tiles: Mapping[str, TileSet], sets: Mapping[str, Features], labels: Any, cache: Path
) -> dict[str, dict[str, float]]:
    """Return areas under the curve where few squares are judged and others follow them.

    Half of a made-up slide is own, half is foreign. A quarter of its squares is judged
    by the chosen distance; every other square takes the mean of the five judged ones
    whose embedding by the student (tiles, and tokens) is most like its own.
    """
    logs = log_distances(sets, CHOSEN, labels, folds_of(tiles["own"].cases))
    in_token, found = {}, {}
    for name in ("own", *(n for n, one in tiles.items() if one.kind == "organ")):
        windows, rows = windows_of(tiles[name], 24 if name == "own" else 3)
        mark = hashlib.sha256(windows.tobytes()).hexdigest()[:16]
        in_token[name] = np.load(cache / f"tokens-{mark}.npy"), logs[name][rows]
    tokens_own, judged_own = in_token.pop("own")
    for name, (tokens, judged) in in_token.items():
        whole = sets["own"]["own/final"], sets[name]["own/final"]
        found[name] = {
            "judged themselves": auc(logs["own"], logs[name]),
            "by tiles": _followed(*whole, logs["own"], logs[name]),
            "by tokens": _followed(tokens_own, tokens, judged_own, judged),
        }
    return found


def _followed(own: Floats, other: Floats, own_log: Floats, other_log: Floats) -> float:
    rng = np.random.default_rng(SEED)
    areas = []
    for _ in range(20):
        n = min(len(own), len(other), 150)
        a = rng.choice(len(own), n, replace=False)
        b = rng.choice(len(other), n, replace=False)
        rows = np.concatenate([own[a], other[b]])
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        values = np.concatenate([own_log[a], other_log[b]])
        judged = rng.permutation(2 * n) < n / 2
        like = rows[~judged] @ rows[judged].T
        nearest = np.argsort(-like, axis=1)[:, :5]
        given = values[judged][nearest].mean(1)
        foreign = np.repeat([False, True], n)[~judged]
        areas.append(auc(given[~foreign], given[foreign]))
    return float(np.mean(areas))


# --- the tables ---------------------------------------------------------------------


def main(arguments: list[str]) -> int:
    """Make the tables; see the module."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.trust")
    parser.add_argument("data", type=Path)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args(arguments)
    asked.cache.mkdir(parents=True, exist_ok=True)
    own, labels, _ = own_tiles(asked.data)
    tiles = {one.name: one for one in [own, *other_sets(asked.data, own)]}
    embedders = {name: Embedder(name, asked.cache) for name in NETWORKS}
    sets: dict[str, Features] = {}
    for name, one in tiles.items():
        found = {n: embedder(one.tiles) for n, embedder in embedders.items()}
        sets[name] = {f"{n}/{k}": v for n, f in found.items() for k, v in f.items()}
    result = tables(tiles, sets, labels)
    result["odd"] = {n: _look(one.tiles) for n, one in tiles.items() if n != "own"}
    by_case = [_look(own.tiles[own.cases == case]) for case in np.unique(own.cases)]
    for share in (0, 0.01, 0.5, 0.99, 1):
        result["odd"][f"own cases, {100 * share:g} %"] = {
            name: float(np.quantile([odd[name] for odd in by_case], share))
            for name in by_case[0]
        }
    result["program"] = as_program(tiles, sets)
    result["tokens"] = in_tokens(tiles, sets, labels, embedders["own"], asked.cache)
    result["few"] = with_few_cases(tiles, sets, labels)
    result["spread"] = spread(tiles, sets, labels, asked.cache)
    for name, embedder in embedders.items():
        if embedder.count:
            result[f"seconds of CPU per 100 squares, {name}"] = round(
                100 * embedder.seconds / embedder.count, 2
            )
    if asked.json:
        asked.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(as_markdown(result, CHOSEN))
    return 0


def _look(tiles: npt.NDArray[np.uint8]) -> dict[str, float]:
    look = look_of(tiles)
    inks = {f"{name} ink": share for name, share in look.inks}
    return {"brown": look.brown, "dark": look.dark, **inks, "sharpness": look.sharpness}


def as_program(
    tiles: Mapping[str, TileSet], sets: Mapping[str, Features]
) -> dict[str, dict[str, Any]]:
    """Return what the program says of mosaics of 50 squares, looks included, by set.

    *Own* mosaics are of one case that the reference was not fitted to.
    """
    rng = np.random.default_rng(SEED)
    own = tiles["own"]
    fold = folds_of(own.cases)
    names = METHODS[CHOSEN][0]
    values = {
        n: np.concatenate([features[k] for k in names], axis=1)
        for n, features in sets.items()
    }

    def fitted(rows: npt.NDArray[Any]) -> TrustReference:
        look = oddest_look(own.tiles[rows], own.cases[rows])
        mine, whose = values["own"][rows], own.cases[rows]
        found = fit_reference(mine, whose, look=look, edge_px=PX)
        assert found is not None
        return found

    def said(reference: TrustReference, name: str, among: Any) -> SlideTrust:
        picked = rng.choice(among, 50)
        cells = np.stack([picked, picked], axis=1).astype(np.int32)
        logs = reference.log_distances(values[name][picked])
        seen = SeenSquares(cells, logs, np.ones(50, np.bool_), whole=False)
        return judge(reference, seen, look_of(tiles[name].tiles[picked]))

    without = [fitted(fold != k) for k in range(FOLDS)]
    whole = fitted(np.ones(len(fold), np.bool_))
    found = {}
    for name, one in tiles.items():
        groups, sizes = np.unique(one.cases, return_counts=True)
        groups = groups[sizes >= 5]
        verdicts = []
        for _ in range(PROGRAM_MOSAICS if name == "own" else PROGRAM_MOSAICS // 4):
            among = np.arange(len(one.cases))
            if len(groups):
                among = np.flatnonzero(one.cases == rng.choice(groups))
            reference = without[fold[among[0]]] if name == "own" else whole
            verdicts.append(said(reference, name, among))
        odd = [oddity for one in verdicts for oddity in one.oddities]
        found[name] = {
            "unlike": float(np.mean([v.verdict is Verdict.UNLIKE for v in verdicts])),
            "like": float(np.mean([v.verdict is Verdict.LIKE for v in verdicts])),
            "squares unlike": float(np.mean([v.unlike_share for v in verdicts])),
            "odd": {o.value: odd.count(o) / len(verdicts) for o in dict.fromkeys(odd)},
        }
    return found


def tables(
    tiles: Mapping[str, TileSet], sets: Mapping[str, Features], labels: Any
) -> dict[str, Any]:
    """Return everything that comes from features alone."""
    cases = tiles["own"].cases
    fold = folds_of(cases)
    logs = {m: log_distances(sets, m, labels, fold) for m in METHODS}
    logs["energy"], logs["largest logit"] = (
        by_logits(sets, energy=e) for e in (True, False)
    )
    others = [name for name in tiles if name != "own"]
    areas = {m: {n: auc(d["own"], d[n]) for n in others} for m, d in logs.items()}
    beyond = {}
    for method, found in logs.items():
        limits = CaseLimits.of(found["own"], cases, 0.5)
        beyond[method] = {
            n: (float(np.median(found[n])) - limits.mu) / limits.tau for n in others
        }
    spread = {
        method: {
            n: auc_interval(logs[method]["own"], cases, logs[method][n], tiles[n].cases)
            for n in others
        }
        for method in (BEFORE, CHOSEN)
    }
    return {
        "kinds": {name: one.kind for name, one in tiles.items()},
        "squares": {name: len(one.tiles) for name, one in tiles.items()},
        "auc": areas,
        "auc_95": spread,
        "beyond_tau": beyond,
        "verdicts": {
            m: {n: simulate(logs[m], tiles, fold, n) for n in SIZES}
            for m in (BEFORE, "start, last, by class", CHOSEN)
        },
    }


def in_tokens(
    tiles: Mapping[str, TileSet],
    sets: Mapping[str, Features],
    labels: Any,
    embedder: Embedder,
    cache: Path,
) -> dict[str, Any]:
    """Return what the last layer's distance says of tokens, by tiles' statistics."""
    distance = _before(sets["own"]["own/final"], labels)
    found = {}
    for name in ("own", *(n for n, one in tiles.items() if one.kind == "organ")):
        windows, rows = windows_of(tiles[name], 24 if name == "own" else 3)
        if not len(windows):
            continue
        mark = hashlib.sha256(windows.tobytes()).hexdigest()[:16]
        path = cache / f"tokens-{mark}.npy"
        if not path.is_file():
            np.save(path, token_embeddings(embedder, windows))
        alone = np.log(distance(sets[name]["own/final"][rows]))
        found[name] = (alone, np.log(distance(np.load(path))))
    own = found["own"]
    limits = [float(np.quantile(values, 0.99)) for values in own]
    return {
        name: {
            "shift": float(np.median(among - alone)),
            "correlation": float(np.corrcoef(alone, among)[0, 1]),
            "auc of tiles": auc(own[0], alone),
            "auc of tokens": auc(own[1], among),
            "beyond the tiles' limit": float((among > limits[0]).mean()),
        }
        for name, (alone, among) in found.items()
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

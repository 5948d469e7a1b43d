"""Where a partner lies, found without a landmark

Seeded trials of `alignment_trials.py`: sections with a partner in another stain, turned
by any angle, mirrored or not, cut, softly warped, blurred, with stated µm/px that are
right or wrong by 2 or 4 times; and pairs that do not belong together. Right is a place
whose median error, at landmarks or at a lattice of true places, is below 2 % of the
section's longer side. *Stated / true* is the error that the search states over that
error. Seconds are of one core. `python tests/bench/alignment.py FILE --seeds 0 20`
appends trials to a file of JSON lines, and goes on where it was stopped;
`python tests/bench/alignment.py FILE` prints the tables of what is there, and with
`--plot PNG` draws the stated errors against the true ones.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tests.bench.alignment_trials import Trial

RIGHT = 0.02
"""Share of the section's longer side within which a place is right."""


def tried(trial: Trial) -> dict[str, Any]:
    """Search, and compare with the truth."""
    from napari_histodistill.distill.layers.finding import Found, find
    from napari_histodistill.running import CancelToken

    began = time.process_time()
    *_, found = find(trial.sparse, trial.dense, cancel=CancelToken())
    seconds = time.process_time() - began
    assert isinstance(found, Found)
    known = found.registration
    line = {
        "kind": trial.kind,
        "seed": trial.seed,
        "stated_scale": 1 / trial.true_scale,
        "score": found.score,
        "margin": found.margin,
        "accepted": found.accepted,
        "seconds": seconds,
    }
    if trial.belongs:
        line["turns"], line["mirrored"] = _orientation(trial)
        off = np.linalg.norm(known.to_dense(trial.sparse_um) - trial.dense_um, axis=1)
        line["error_um"] = float(np.median(off)) * trial.true_scale
        line["share"] = line["error_um"] / trial.longest_um
        line["stated_um"] = known.error_um * trial.true_scale
    return line


def _orientation(trial: Trial) -> tuple[int, bool]:
    """Return the nearest quarter turn of the partner, and whether it is mirrored."""
    ones = np.ones((len(trial.sparse_um), 1))
    fit = np.linalg.lstsq(np.hstack([trial.sparse_um, ones]), trial.dense_um)[0]
    linear = fit[:2].T
    mirrored = bool(np.linalg.det(linear) < 0)
    turn = linear @ np.diag([1.0, -1.0 if mirrored else 1.0])
    degrees = np.degrees(np.arctan2(turn[1, 0], turn[0, 0]))
    return round(float(degrees) / 90) % 4, mirrored


def table(lines: list[dict[str, Any]]) -> str:
    """Return the trials, kind by kind, as Markdown."""
    heads = (
        *("kind", "n", "accepted, right", "accepted, wrong", "refused, right"),
        *("refused, not found", "median error, µm"),
        *("lowest margin of these",),
        *("stated / true, 10th, 50th, 90th percentile", "within a factor of two"),
        *("largest score, margin of a stranger", "seconds"),
    )
    rows = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    kinds = list(dict.fromkeys(line["kind"] for line in lines))
    rows += [_row(kind, [x for x in lines if x["kind"] == kind]) for kind in kinds]
    rows.append(_row("all that belong", [x for x in lines if "share" in x]))
    rows.append(_row("all strangers", [x for x in lines if "share" not in x]))
    return "\n".join(rows)


def _row(kind: str, lines: list[dict[str, Any]]) -> str:
    belong = [x for x in lines if "share" in x]
    taken = [x for x in belong if x["accepted"] and x["share"] < RIGHT]
    right = [x for x in belong if x["share"] < RIGHT]
    wrong = sum(x["accepted"] for x in lines) - len(taken)
    ratios = np.array([x["stated_um"] / x["error_um"] for x in taken])
    median = margin = calibrated = within = chance = "–"
    if taken:
        median = f"{np.median([x['error_um'] for x in taken]):.1f}"
        margin = f"{min(x['margin'] for x in taken):.1f}"
        low, middle, high = np.quantile(ratios, (0.1, 0.5, 0.9))
        calibrated = f"{low:.2f}, {middle:.2f}, {high:.2f}"
        within = f"{((ratios > 0.5) & (ratios < 2)).mean():.2f}"
    if not belong and lines:
        top = (max(x[name] for x in lines) for name in ("score", "margin"))
        chance = ", ".join(f"{value:.1f}" for value in top)
    cells = (
        *(kind, len(lines), len(taken), wrong, len(right) - len(taken)),
        *(len(belong) - len(right) if belong else len(lines) - wrong,),
        *(median, margin, calibrated, within, chance),
        f"{np.median([x['seconds'] for x in lines]):.1f}" if lines else "–",
    )
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def crossed(lines: list[dict[str, Any]]) -> str:
    """Return right and accepted ones of how many, by stated scale and orientation."""
    known = [x for x in lines if "share" in x]
    scales = sorted({x["stated_scale"] for x in known})
    ways = [(turns, mirrored) for mirrored in (False, True) for turns in range(4)]
    heads = [
        *("kind", *(f"µm/px × {scale:g}" for scale in scales)),
        *(f"{90 * t}°{', mirrored' if m else ''}" for t, m in ways),
    ]
    rows = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for kind in dict.fromkeys(x["kind"] for x in known):
        mine = [x for x in known if x["kind"] == kind]
        groups = [[x for x in mine if x["stated_scale"] == scale] for scale in scales]
        groups += [[x for x in mine if (x["turns"], x["mirrored"]) == w] for w in ways]
        cells = [_right_of(group) for group in groups]
        rows.append(f"| {kind} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _right_of(lines: list[dict[str, Any]]) -> str:
    right = sum(x["accepted"] and x["share"] < RIGHT for x in lines)
    return f"{right} of {len(lines)}" if lines else "–"


def plot(lines: list[dict[str, Any]], to: Path) -> None:
    """Draw the error that was stated against the one at places the search never saw."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 5.2), dpi=100, layout="constrained")
    axes = figure.subplots()
    known = [x for x in lines if "share" in x and np.isfinite(x["stated_um"])]
    ends = np.array([0.3, 3000.0])
    axes.fill_between(ends, ends / 2, ends * 2, color="0.92", label="a factor of two")
    axes.plot(ends, ends, color="0.6", linewidth=1)
    colours = mpl.colormaps["tab10"]
    for number, kind in enumerate(dict.fromkeys(x["kind"] for x in known)):
        mine = [x for x in known if x["kind"] == kind]
        for accepted in (True, False):
            group = [x for x in mine if x["accepted"] == accepted]
            axes.plot(
                [x["error_um"] for x in group],
                [x["stated_um"] for x in group],
                *("o" if accepted else "x",),
                color=colours(number),
                markersize=4,
                label=kind if accepted else None,
            )
    axes.set(xscale="log", yscale="log", xlim=ends, ylim=(0.3, 300))
    axes.set_xlabel("true error, µm (median)")
    axes.set_ylabel("stated error, µm")
    axes.set_title("Dots were accepted, crosses refused", fontsize=10)
    axes.legend(fontsize=8, loc="upper left")
    figure.savefig(to)


def main() -> None:
    """Try what is asked for, and print the table of all that is there."""
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from tests.bench.alignment_trials import KINDS, draw

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--seeds", type=int, nargs=2, default=(0, 0))
    parser.add_argument("--kinds", nargs="*", default=KINDS)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--plot", type=Path)
    asked = parser.parse_args()
    until = time.monotonic() + asked.seconds
    lines = []
    if asked.file.exists():
        lines = [json.loads(x) for x in asked.file.read_text("utf-8").splitlines()]
    done = {(line["kind"], line["seed"]) for line in lines}
    for seed in range(*asked.seeds):
        for kind in asked.kinds:
            if (kind, seed) in done or time.monotonic() > until:
                continue
            lines.append(tried(draw(kind, seed)))
            with asked.file.open("a", encoding="utf-8") as kept:
                kept.write(json.dumps(lines[-1]) + "\n")
    print(table(lines), crossed(lines), sep="\n\n")
    if asked.plot:
        plot(lines, asked.plot)


if __name__ == "__main__":
    main()

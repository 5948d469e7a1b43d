"""Figures of runs and scores, drawn without changing the caller's matplotlib.

``Figure`` is used directly, never pyplot: a program that embeds this keeps its backend.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt
    from matplotlib.figure import Figure

DPI = 150
# Okabe and Ito's palette, which colour-blind people can tell apart.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
MAX_POINTS = 3000


def draw_curves(events: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw loss, its terms, validation and health against the step.

    Parameters
    ----------
    events : sequence of dict
        Events from :func:`~napari_histodistill.distill.runs.events.read_events`.
    path : Path
        PNG.
    """
    steps = [e for e in events if e["kind"] == "step"]
    checks = [e for e in events if e["kind"] == "validation"]
    figure = new_figure(10, 3.2)
    loss, terms, health = figure.subplots(1, 3)
    at = [e["step"] for e in steps]
    loss.plot(at, [e["total"] for e in steps], color=PALETTE[0], label="training")
    if checks:
        loss.plot(
            [e["step"] for e in checks],
            [e["total"] for e in checks],
            color=PALETTE[1],
            marker="o",
            markersize=3,
            label="validation",
        )
    names = sorted({name for e in steps for name in e["terms"]})
    for colour, name in zip(PALETTE, names, strict=False):  # few terms, many colours
        terms.plot(at, [e["terms"].get(name) for e in steps], color=colour, label=name)
    health.plot(
        at,
        [e["effective_rank"] for e in steps],
        color=PALETTE[2],
        label="effective rank",
    )
    health.set_ylim(bottom=0)
    for axes, title in ((loss, "loss"), (terms, "its terms"), (health, "embeddings")):
        axes.set_title(title, loc="left", fontsize=10)
        axes.set_xlabel("step")
        if axes.lines:
            axes.legend(frameon=False, fontsize=8)
    save_figure(figure, path)


def draw_confusion(
    table: Sequence[Sequence[int]], names: Sequence[str], path: Path
) -> None:
    """Draw a confusion matrix; shades are shares of the row.

    Parameters
    ----------
    table : sequence
        ``(classes, classes)`` counts, rows the truth.
    names : sequence of str
        Names of the classes.
    path : Path
        PNG.
    """
    counts = np.asarray(table, float)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = 2.4 + 0.6 * len(names)
    figure = new_figure(size + 0.8, size)
    axes = figure.subplots()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (row, column), value in np.ndenumerate(counts):
        colour = "white" if share[row, column] > 0.55 else "black"
        axes.text(
            column,
            row,
            f"{value:g}",
            ha="center",
            va="center",
            color=colour,
            fontsize=8,
        )
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right", fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("truth")
    save_figure(figure, path)


def draw_embedding_map(
    embeddings: npt.NDArray[np.floating],
    labels: npt.NDArray[np.integer],
    classes: Sequence[tuple[str, str]],
    path: Path,
) -> None:
    """Draw embeddings in the plane (PCA, then t-SNE), coloured by class.

    Neighbourhoods may be read from it, distances between groups may not.

    Parameters
    ----------
    embeddings : ndarray
        ``(n, dim)``; 3,000 of them at most are drawn.
    labels : ndarray
        ``(n,)`` int.
    classes : sequence of (name, colour)
        In the order of labels.
    path : Path
        PNG.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    rng = np.random.default_rng(0)
    rows = rng.permutation(len(embeddings))[:MAX_POINTS]
    x, y = np.asarray(embeddings, np.float32)[rows], np.asarray(labels)[rows]
    components = min(50, *x.shape)
    x = PCA(components, random_state=0).fit_transform(x)
    perplexity = min(30.0, (len(x) - 1) / 3)
    flat = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(x)
    figure = new_figure(6.4, 5)
    axes = figure.subplots()
    for k, (name, colour) in enumerate(classes):
        mine = flat[y == k]
        axes.scatter(mine[:, 0], mine[:, 1], s=8, color=colour, label=name, lw=0)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel("t-SNE: neighbours mean something, distances do not", fontsize=8)
    axes.legend(
        frameon=False,
        fontsize=8,
        markerscale=2,
        bbox_to_anchor=(1, 1),
        loc="upper left",
    )
    save_figure(figure, path)


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure, sizes in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, without the upper and right spines."""
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=DPI, format="png")

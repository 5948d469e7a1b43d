"""A training run as a person meets it: where it stands, how it does, its name."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from napari_histodistill.controllers.shared.planning import duration_in_words
from napari_histodistill.distill.runs.events import events_of, health_in_words

if TYPE_CHECKING:
    from pathlib import Path

    from napari_histodistill.distill.runs.process import RunView
    from napari_histodistill.slides import Slide


def say_run(view: RunView) -> str:
    """Return where a run stands, in one line."""
    steps = events_of(view.events, "step")
    last = steps[-1] if steps else None
    if view.state in {"starting", "running"} and last is None:
        return "Starting: reading pairs, building networks…"
    at = f"step {last['step']} of {last['steps']}" if last else "before the first step"
    if view.state == "running" and last is not None:
        left = last["seconds_left"]
        soon = f", {duration_in_words(left)} left" if left else ""
        return f"Training: {at}{soon}."
    if view.is_paused:
        return f"Paused at {at}."
    if view.state == "finished":
        return f"Finished after {last['steps'] if last else 0} steps." + _found(view)
    if view.state == "stopped":
        return f"Stopped at {at}; the best student so far is kept." + _found(view)
    return view.message


def health_of(view: RunView) -> str:
    """Return a warning in plain words if the student stops telling places apart."""
    return health_in_words(view.events)


def run_name(sparse: Slide, at: float | None = None) -> str:
    """Return a folder's name for a run that starts now."""
    letters = [c if c.isascii() and c.isalnum() else "-" for c in sparse.name.lower()]
    stem = "-".join(filter(None, "".join(letters).split("-")))[:40] or "slide"
    return f"{stem}-{time.strftime('%Y%m%d-%H%M%S', time.localtime(at))}"


def newest_run(runs: Path) -> Path | None:
    """Return the run folder that something happened in last; None if there is none."""
    found = [p.parent for p in runs.glob("*/config.toml")]
    return max(found, key=lambda p: p.stat().st_mtime, default=None)


def _found(view: RunView) -> str:
    judged = events_of(view.events, "validation")
    known = [e for e in judged if e.get("retrieval") is not None]
    if not known:
        return ""
    best = max(known, key=lambda e: e["retrieval"])
    return (
        f" Places kept aside find their own partner {best['retrieval']:.0%} of the "
        f"time (by chance {best['chance']:.0%})."
    )

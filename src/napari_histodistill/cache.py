"""Where samples, embedding stores and trainings are kept on this machine."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_dir(*parts: str) -> Path:
    """Return (and make) a folder of the user's cache.

    ``HISTODISTILL_CACHE`` overrides the platform's place, for example to keep stores on
    a fast disk.
    """
    root = os.environ.get("HISTODISTILL_CACHE")
    base = Path(root) if root else platformdirs.user_cache_path("napari-histodistill")
    folder = base.joinpath(*parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def runs_dir() -> Path:
    """Return (and make) the folder of trainings: work, which no cleaner may remove.

    ``HISTODISTILL_RUNS`` overrides the platform's place for data.
    """
    root = os.environ.get("HISTODISTILL_RUNS")
    data = platformdirs.user_data_path("napari-histodistill") / "runs"
    folder = Path(root) if root else data
    folder.mkdir(parents=True, exist_ok=True)
    return folder

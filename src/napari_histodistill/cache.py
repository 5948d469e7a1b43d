"""The folders in which samples, embedding stores and trainings are kept."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_dir(*parts: str) -> Path:
    """Return a folder in the user's cache; it is created if missing.

    ``HISTODISTILL_CACHE`` overrides the platform's location, for example to keep stores
    on a fast disk.
    """
    root = os.environ.get("HISTODISTILL_CACHE")
    base = Path(root) if root else platformdirs.user_cache_path("napari-histodistill")
    folder = base.joinpath(*parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def drafts_dir() -> Path:
    """Return the folder for drafts, which nobody else may read; created if missing.

    It lies with the user's data. ``HISTODISTILL_DRAFTS`` overrides the platform's
    location.
    """
    root = os.environ.get("HISTODISTILL_DRAFTS")
    data = platformdirs.user_data_path("napari-histodistill") / "drafts"
    folder = Path(root) if root else data
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def runs_dir() -> Path:
    """Return the folder for trainings; it is created if missing.

    It lies with the user's data, not in the cache, which a cleaning tool may empty.
    ``HISTODISTILL_RUNS`` overrides the platform's location.
    """
    root = os.environ.get("HISTODISTILL_RUNS")
    data = platformdirs.user_data_path("napari-histodistill") / "runs"
    folder = Path(root) if root else data
    folder.mkdir(parents=True, exist_ok=True)
    return folder

"""The folders in which samples, embedding stores and trainings are kept.

A container or a cluster's node may have no home, or one that cannot be written to.
Nothing ends because of that: a temporary folder takes the place, and :func:`cache_note`
says so once.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import threading
from pathlib import Path

import platformdirs

from napari_histodistill.errors import InputError

CACHE_VARIABLE = "HISTODISTILL_CACHE"
RUNS_VARIABLE = "HISTODISTILL_RUNS"

_NAME = "napari-histodistill"
_NO_HOME = "there is no home folder"

_CHECKING = threading.Lock()
_WRITABLE: set[Path] = set()
_SUBSTITUTES: dict[Path, Path] = {}
_NOTES: dict[Path, str] = {}


def cache_dir(*parts: str) -> Path:
    """Return a folder in the user's cache; it is created if missing.

    ``HISTODISTILL_CACHE`` overrides the platform's location, for example to keep stores
    on a fast disk. Where the folder cannot be written to, a temporary one takes its
    place until the process ends.

    Raises
    ------
    InputError
        If there is not even a temporary folder.
    """
    root = _cache_root()
    folder = root.joinpath(*parts)
    with _CHECKING:
        reason = "" if root in _SUBSTITUTES else _why_not(root, folder)
        if reason:
            _SUBSTITUTES[root] = _temporary(root, reason, CACHE_VARIABLE)
            atexit.register(shutil.rmtree, _SUBSTITUTES[root], ignore_errors=True)
            _NOTES[root] = (
                f"The cache {root} cannot be written to ({reason}), so what belongs "
                "there is kept in a temporary folder until this program ends; set "
                f"{CACHE_VARIABLE} to a folder that can be written to."
            )
        if root in _SUBSTITUTES:
            folder = _SUBSTITUTES[root].joinpath(*parts)
            folder.mkdir(parents=True, exist_ok=True)
    return folder


def cached(*parts: str) -> Path:
    """Return where a file of the cache is, or will be if it is not there yet.

    Unlike a path made from :func:`cache_dir`, it also finds a file in a cache that can
    be read and not written to, such as one that came with a container.

    Raises
    ------
    InputError
        As :func:`cache_dir`.
    """
    kept = _cache_root().joinpath(*parts)
    return kept if kept.exists() else cache_dir(*parts[:-1]) / parts[-1]


def cache_note() -> str:
    """Return that a temporary folder took the cache's place, and what to do about it.

    Empty where the cache can be written to, or nothing asked for it yet.
    """
    return _NOTES.get(_cache_root(), "")


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


def settings_dir() -> Path:
    """Return the folder for settings; it may not be there yet.

    ``HISTODISTILL_SETTINGS`` overrides the platform's location.
    """
    root = os.environ.get("HISTODISTILL_SETTINGS")
    return Path(root) if root else platformdirs.user_config_path(_NAME)


def runs_dir() -> Path:
    """Return the folder for trainings; it is created if missing.

    It lies with the user's data, not in the cache, which a cleaning tool may empty.
    ``HISTODISTILL_RUNS`` overrides the platform's location. Where it cannot be written
    to, a temporary folder takes its place; it outlives the process, as a training does.

    Raises
    ------
    InputError
        If there is not even a temporary folder.
    """
    root = _runs_root()
    with _CHECKING:
        reason = "" if root in _SUBSTITUTES else _why_not(root, root)
        if reason:
            _SUBSTITUTES[root] = _temporary(root, reason, RUNS_VARIABLE)
            _NOTES[root] = (
                f"The folder for trainings, {root}, cannot be written to ({reason}), "
                f"so they go to {_SUBSTITUTES[root]}, which the system may empty: copy "
                f"what you want to keep, or set {RUNS_VARIABLE} to another folder."
            )
        return _SUBSTITUTES.get(root, root)


def runs_note() -> str:
    """Return that trainings go to a temporary folder; empty if they do not."""
    return _NOTES.get(_runs_root(), "")


def _cache_root() -> Path:
    root = os.environ.get(CACHE_VARIABLE)
    if root:
        return Path(root)
    try:
        return platformdirs.user_cache_path(_NAME)
    except RuntimeError:  # platformdirs' word for no home; earlier ones gave "~/…"
        return Path("~", _NAME)


def _runs_root() -> Path:
    root = os.environ.get(RUNS_VARIABLE)
    if root:
        return Path(root)
    try:
        return platformdirs.user_data_path(_NAME) / "runs"
    except RuntimeError:
        return Path("~", _NAME, "runs")


def _why_not(root: Path, folder: Path) -> str:
    """Make a folder below a root; return why it cannot be written to, or ""."""
    # A user without an entry in the system's list has no home: "~" stays as it is, and
    # would become a folder of that name.
    if root.parts[:1] == ("~",):
        return _NO_HOME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if folder not in _WRITABLE:
            with tempfile.TemporaryFile(dir=folder):
                pass
            _WRITABLE.add(folder)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _temporary(root: Path, reason: str, variable: str) -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix="histodistill-"))
    except OSError as error:
        msg = (
            f"{root}: cannot be written to ({reason}), and there is no temporary "
            f"folder either; set {variable} to a folder that can be written to."
        )
        raise InputError(msg) from error

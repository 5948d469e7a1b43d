"""Students: the encoders that users run; their specs, bundles, devices and backends."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_histodistill.students.bundle import load_student, save_student
    from napari_histodistill.students.bundled import list_students

__all__ = ["list_students", "load_student", "save_student"]

_HOMES = {
    "list_students": "napari_histodistill.students.bundled",
    "load_student": "napari_histodistill.students.bundle",
    "save_student": "napari_histodistill.students.bundle",
}


def __getattr__(name: str) -> object:
    """Import a public name on first use: importing the package must not load torch."""
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)

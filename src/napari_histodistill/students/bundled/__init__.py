"""Students that come with the package; listing them does not need torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_histodistill.students.spec import StudentSpec

_HOME = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class StudentEntry:
    """One student that can be loaded by name.

    Attributes
    ----------
    name : str
        Name for :func:`load_student`.
    spec : StudentSpec
        The student's spec.
    folder : Path
        The student's bundle.
    digest : str
        The student's identity, hex.
    """

    name: str
    spec: StudentSpec
    folder: Path
    digest: str


def find_bundled(name: str) -> Path | None:
    """Return the folder of a bundled student; None if none has that name."""
    return next((folder for folder in _folders() if folder.name == name), None)


def list_students() -> tuple[StudentEntry, ...]:
    """Return the students that come with the package, those with classes first.

    Returns
    -------
    tuple of StudentEntry
        Name, spec, folder and digest of each. Nothing is loaded, torch neither.

    Raises
    ------
    BundleError
        If the installed package is damaged.

    Examples
    --------
    >>> from napari_histodistill import list_students
    >>> for entry in list_students():
    ...     print(entry.name, entry.spec.tile_px, len(entry.spec.classes))
    colon-he 224 6
    colon-probe 224 6
    bulb-control 64 0
    bulb-genes 64 0
    imagenet-lite0 224 0
    """
    from napari_histodistill.students.spec_file import read_spec

    specs = [(folder, read_spec(folder / "spec.json")) for folder in _folders()]
    entries = [StudentEntry(s.name, s, folder, s.digest) for folder, s in specs]
    return tuple(sorted(entries, key=lambda e: (not e.spec.classes, e.name)))


def _folders() -> list[Path]:
    return sorted(p.parent for p in _HOME.glob("*/spec.json"))

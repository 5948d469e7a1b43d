"""The student that made a store, loaded again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_histodistill.errors import BundleError, InputError

if TYPE_CHECKING:
    from napari_histodistill.maps import EmbeddingStore
    from napari_histodistill.students.student import Student


def maker_of(store: EmbeddingStore, given: str | None, *, device: str) -> Student:
    """Load the student that made a store, with the stain map that it saw through.

    Parameters
    ----------
    store : EmbeddingStore
        Names its student.
    given : str or None
        What ``--student`` says in its place: a name or a bundle folder.
    device : str
        See ``load_student``.

    Raises
    ------
    InputError
        If the student is not installed, or the store's stain map is damaged.
    BundleError
        If the one that was given cannot be loaded.
    """
    from napari_histodistill.slides.tissue.stain import StainMap
    from napari_histodistill.students import load_student
    from napari_histodistill.students.staining import seen_through

    made_by = store.provenance
    try:
        student = load_student(given or made_by.student_name, device=device)
    except BundleError as error:
        if given is not None:
            raise
        msg = (
            f"{store.path}: it was made by student {made_by.student_name!r}, which is "
            "not among the installed ones; give its folder with --student."
        )
        raise InputError(msg) from error
    if not made_by.stains:
        return student
    try:
        stains = StainMap.from_json(made_by.stains)
    except ValueError as error:
        msg = f"{store.path}: {error}; compute the store again."
        raise InputError(msg) from error
    return seen_through(student, stains)

"""Reading ``spec.json``, which may come from strangers: everything is checked."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pydantic import ValidationError

from napari_histodistill.errors import BundleError
from napari_histodistill.students.spec import FORMAT_VERSION, StudentSpec
from napari_histodistill.students.validation import first_fault

if TYPE_CHECKING:
    from pathlib import Path

MAX_SPEC_BYTES = 2**20


def read_spec(path: Path) -> StudentSpec:
    """Read and check a student's ``spec.json``.

    Raises
    ------
    BundleError
        If it cannot be read, states something impossible, was changed, or is from a
        newer version.
    """
    try:
        if path.stat().st_size > MAX_SPEC_BYTES:
            msg = f"{path} is larger than {MAX_SPEC_BYTES} bytes: not a student's spec."
            raise BundleError(msg)
        content = json.loads(
            path.read_text(encoding="utf-8"), object_pairs_hook=_only_once
        )
    except (OSError, ValueError, RecursionError) as error:
        msg = f"{path} cannot be read as JSON ({error}): get the bundle again."
        raise BundleError(msg) from error
    _check_version(path, content)
    try:
        spec = StudentSpec.model_validate(content)
    except ValidationError as error:
        msg = f"{path}: {first_fault(StudentSpec, error, 'the spec')}"
        raise BundleError(msg) from error
    if spec.digest != spec.computed_digest():
        msg = (
            f"{path} was changed after it was saved (its digest does not match): get "
            "the bundle again, or save it again with save_student."
        )
        raise BundleError(msg)
    return spec


def _only_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Refuse an object with a field twice: JSON readers do not agree on its value."""
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        msg = f"the field {twice!r} occurs twice"
        raise ValueError(msg)
    return found


def _check_version(path: Path, content: object) -> None:
    version = content.get("format_version") if isinstance(content, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        msg = f"{path}: format_version must be a whole number: not a student's spec."
        raise BundleError(msg)
    if version > FORMAT_VERSION:
        msg = (
            f"{path} was made by a newer version (format {version}, this one reads up "
            f"to {FORMAT_VERSION}): update napari-histodistill."
        )
        raise BundleError(msg)

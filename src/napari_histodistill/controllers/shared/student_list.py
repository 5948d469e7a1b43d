"""The students on offer, and what is said of a slide and a student in tooltips."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_histodistill.students import list_students

if TYPE_CHECKING:
    from pathlib import Path

    from napari_histodistill.slides import Slide
    from napari_histodistill.students.spec import StudentSpec


class StudentChoice:
    """One line of the student combo: a name or folder, its spec, perhaps a note."""

    def __init__(self, name: str | Path, spec: StudentSpec, note: str = "") -> None:
        self.name, self.spec, self.note = name, spec, note

    @property
    def title(self) -> str:
        """Name and scale (or the note), for the combo."""
        return f"{self.spec.name} · {self.note or f'{self.spec.mpp:g} µm/px'}"


def bundled_students() -> list[StudentChoice]:
    """Return what is on offer where nothing else is."""
    return [StudentChoice(e.name, e.spec) for e in list_students()]


def slide_words(slide: Slide | None) -> str:
    """Return what is known of a slide, for a tooltip."""
    if slide is None:
        return "No slide is open."
    height, width = slide.shape
    mpp = f"{slide.mpp.mean:.4g} µm/px ({slide.mpp.source})" if slide.mpp else "unknown"
    lines = [
        slide.name,
        f"{height:,} × {width:,} px, {len(slide.level_infos)} levels",
        f"µm per pixel: {mpp}",
        f"Read as {slide.info.vendor or slide.info.backend}",
        *slide.info.notes,
    ]
    return "\n".join(lines)


def student_words(spec: StudentSpec) -> str:
    """Return what is known of a student, for a tooltip."""
    lines = [spec.title, spec.description, f"Licence: {spec.licence}"]
    scale = f"Tile {spec.tile_um:.0f} µm at {spec.mpp:g} µm/px ({spec.mpp_source})"
    lines.append(scale)
    if spec.classes:
        lines.append("Classes: " + ", ".join(spec.class_names))
    lines += [f"{m.name}: {m.value:.2f} ({m.protocol})" for m in spec.metrics]
    return "\n".join(line for line in lines if line)

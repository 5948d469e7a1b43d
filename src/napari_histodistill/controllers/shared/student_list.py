"""The students on offer, and what is said of a slide and a student in tooltips."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_histodistill.students import list_students

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_histodistill.slides import Slide
    from napari_histodistill.slides.pyramid.optics import Optics
    from napari_histodistill.students.spec import StudentSpec


class StudentChoice:
    """One line of the student combo: a name or folder, its spec, perhaps a note."""

    def __init__(self, name: str | Path, spec: StudentSpec, note: str = "") -> None:
        self.name, self.spec, self.note = name, spec, note

    @property
    def title(self) -> str:
        """Name and scale (or the note), for the combo."""
        return f"{self.spec.name} · {self.note or f'{self.spec.mpp:g} µm/px'}"


def places_of(names: Sequence[str], choices: Sequence[StudentChoice]) -> list[int]:
    """Return where students that a slide asks for stand in a list; none if one lacks.

    Parameters
    ----------
    names : sequence of str
        Names of bundled students.
    choices : sequence of StudentChoice
        The list.
    """
    known = {choice.name: k for k, choice in reversed(list(enumerate(choices)))}
    found = [known[name] for name in names if name in known]
    return found if len(found) == len(names) else []


def chosen_in_words(names: Sequence[str | Path]) -> str:
    """Return what is said where a slide chose its student, and what its control is."""
    first, *others = names
    if not others:
        return f"{first} was chosen for this slide."
    # Two lines of the panel, and no more.
    return f"{first} was chosen; Compare students adds its control, {others[0]}."


def titles_apart(choices: Sequence[StudentChoice]) -> list[str]:
    """Return a title for every student; those alike first say how they were trained.

    Partner, seed and arm, as far as they tell them apart; where nothing does, the first
    digits of the digest. First, because a combo cuts what comes last.
    """
    titles = [choice.title for choice in choices]
    alike: dict[str, list[int]] = {}
    for k, title in enumerate(titles):
        alike.setdefault(title, []).append(k)
    for title, places in alike.items():
        if len(places) > 1:
            for k, words in zip(
                places, _apart([choices[k] for k in places]), strict=True
            ):
                titles[k] = " · ".join([*words, title])
    return titles


def _apart(choices: Sequence[StudentChoice]) -> list[list[str]]:
    """Return what tells students apart, as few words as do; "" is not said."""
    found: list[tuple[str, ...]] = [() for _ in choices]
    for column in zip(*map(_ways_trained, choices), strict=True):
        longer = [(*words, word) for words, word in zip(found, column, strict=True)]
        if len(set(longer)) > len(set(found)):
            found = longer
    return [list(filter(None, words)) for words in found]


def _ways_trained(choice: StudentChoice) -> tuple[str, ...]:
    """Return how a student was trained, the most telling first; "" if not known."""
    training, partner, arm, whole = choice.spec.training, "", "", ""
    if training is not None:
        arm, named = training.arm, training.partners
        if named is not None:
            kinds = dict.fromkeys(words.partition(":")[0] for words in named)
            partner = f"with {', '.join(kinds)}" if named else "without partner"
            whole = ", ".join(named)
    seed = ""
    if isinstance(choice.name, Path):
        from napari_histodistill.distill.runs.kin import kin_of

        kin = kin_of(choice.name)
        seed = "" if kin is None else f"seed {kin.seed}"
    return partner, seed, arm, whole, choice.spec.digest[:6]


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
        _scanned(slide.info.optics),
        f"Read as {slide.info.vendor or slide.info.backend}",
        *slide.info.notes,
    ]
    return "\n".join(line for line in lines if line)


def _scanned(optics: Optics) -> str:
    times = optics.magnification
    at = "" if times is None else f" at {times:g}×"
    by = f" by {optics.scanner}" if optics.scanner else ""
    return f"Scanned{at}{by}" if at or by else ""


def student_words(spec: StudentSpec) -> str:
    """Return what is known of a student, for a tooltip."""
    lines = [spec.title, spec.description, f"Licence: {spec.licence}"]
    scale = f"Tile {spec.tile_um:.0f} µm at {spec.mpp:g} µm/px ({spec.mpp_source})"
    lines.append(scale)
    if spec.classes:
        lines.append("Classes: " + ", ".join(spec.class_names))
    lines += [f"{m.name}: {m.value:.2f} ({m.protocol})" for m in spec.metrics]
    return "\n".join(line for line in lines if line)

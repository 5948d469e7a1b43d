"""``demo``: the window, with a sample or with the user's own slide."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from napari_histodistill.cli.console import tell
from napari_histodistill.cli.options import DEFAULT_STUDENT, slide_argument


def demo(
    slide: Annotated[
        Path | None,
        slide_argument("[SLIDE]", "Your own slide; by default a lesson."),
    ] = None,
    screenshot: Annotated[
        Path | None,
        typer.Option(
            "--screenshot",
            metavar="FILE",
            help="Write a picture of the window and close it again.",
        ),
    ] = None,
    student: Annotated[
        str | None,
        typer.Option(
            "--student",
            metavar="NAME|DIR",
            help="A student's name (see `histodistill students`) or a bundle folder.",
        ),
    ] = None,
) -> None:
    """Open napari on a slide with its map, or on a lesson with a painted one."""
    tell(_LESSON if slide is None else _OWN)
    say = _Clock().say
    say("checking the display…")
    from napari_histodistill.cli.display import require_display
    from napari_histodistill.students.bundle import load_spec

    if slide is not None:
        student = student or DEFAULT_STUDENT
    if student is not None:
        load_spec(student)
    require_display()
    if slide is not None:
        # A wrong file is refused at once, not after napari has opened.
        from napari_histodistill.slides import open_slide

        open_slide(slide).close()
    say("loading napari and torch; on a slow disk this takes a minute…")
    from napari_histodistill.widgets.demo import open_demo

    open_demo(slide, screenshot=screenshot, student=student, say=say)


_LESSON = (
    "A lesson in napari: a painted slide (not real tissue) is looked at by a student, "
    "four strokes teach it four tissues, and the map is compared with what was "
    "painted. Research use only."
)
_OWN = "Your slide in napari, with the student's map of it. Research use only."


class _Clock:
    """Says what begins, with the time since it was made."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def say(self, line: str) -> None:
        """Print a line on stderr."""
        minutes, seconds = divmod(int(time.monotonic() - self._start), 60)
        tell(f"{minutes}:{seconds:02d}  {line}")

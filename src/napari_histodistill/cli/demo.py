"""``demo``: the window, with a sample or with the user's own slide."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_histodistill.cli.options import (
    DEFAULT_STUDENT,
    StudentOption,
    slide_argument,
)


def demo(
    slide: Annotated[
        Path | None,
        slide_argument("[SLIDE]", "Your own slide; a sample by default."),
    ] = None,
    screenshot: Annotated[
        Path | None,
        typer.Option(
            "--screenshot",
            metavar="FILE",
            help="Write a picture of the window and close it again.",
        ),
    ] = None,
    student: StudentOption = DEFAULT_STUDENT,
) -> None:
    """Open napari with the maps of a sample ready."""
    from napari_histodistill.cli.display import require_display
    from napari_histodistill.students.bundle import load_spec

    load_spec(student)
    require_display()
    if slide is not None:
        # A wrong file is refused at once, not after napari has opened.
        from napari_histodistill.slides import open_slide

        open_slide(slide).close()
    from napari_histodistill.widgets.demo import open_demo

    open_demo(slide, screenshot=screenshot, student=student)

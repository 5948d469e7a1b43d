"""``histodistill …``: the command line, with the same core as the window.

:func:`main` turns whatever happens into the promises of the command line: results on
stdout (with ``--json`` one JSON object and nothing else), progress and warnings on
stderr, errors in one sentence, exit 0 good, 2 bad input, 1 failure, 130 interrupted.

Commands import what they need when they run: ``histodistill --help`` loads no torch.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from napari_histodistill import __version__
from napari_histodistill.cache import cache_note
from napari_histodistill.cli.alike.search import search
from napari_histodistill.cli.alike.similar import similar
from napari_histodistill.cli.compute import classify, embed
from napari_histodistill.cli.console import printable, tell
from napari_histodistill.cli.demo import demo
from napari_histodistill.cli.distilling import distill
from napari_histodistill.cli.doctor import doctor
from napari_histodistill.cli.evaluate import evaluate
from napari_histodistill.cli.export import export
from napari_histodistill.cli.info_students import info, students
from napari_histodistill.cli.sections.align import align
from napari_histodistill.cli.sections.pairs import pairs
from napari_histodistill.errors import (
    HistodistillError,
    bounded_message,
    traceback_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["app", "main"]

FAILURE, BAD_INPUT, INTERRUPTED = 1, 2, 130

app = typer.Typer(
    name="histodistill",
    help=(
        'More from routine H&E: run distilled models ("students") on whole slides. '
        "Research use only."
    ),
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# Written here and not taken from docstrings, which `python -OO` drops.
_COMMANDS: dict[Callable[..., None], str] = {
    demo: "Open napari on a slide with its map, or on a lesson with a painted one.",
    doctor: """Check this installation: device, speed, display.

    Exits with 1 if something is broken that every command needs; a missing display or
    OpenSlide is only reported.""",
    info: "Show a slide's size, levels and µm per pixel.",
    students: "List the students, their classes and licences.",
    embed: """Embed slides into stores that can be resumed.

    Each slide gets DIR/<stem>.zarr. A store of the same slide, student and grid is
    continued where it stopped; any other is refused, or deleted with --restart.""",
    classify: """Map slides' classes and their areas in mm².

    Writes class_map.geojson (QuPath opens it), class_map.zarr (OME-Zarr labels),
    areas.csv, figure.png and summary.json, and keeps the embeddings as
    DIR/<stem>.zarr, so that a second call is quick. Of several slides each gets a
    folder DIR/<stem>, and DIR a summary.html, summary.csv and summary.json.""",
    similar: """Map the similarity to a place and rank the most similar regions.

    Writes similarity.zarr (OME-Zarr), regions.csv, regions.geojson and
    similarity.png.""",
    search: """Find the most similar places of several slides.

    Like a place of one of them, or like a picture. Writes places.html with a picture of
    every place, places.csv, slides.csv (which slides have how much of it), and outlines
    for QuPath.""",
    align: """Align a partner (IHC, fluorescence, labels) with its H&E.

    By landmarks or a transform of another program, or by what both show. Writes the
    transform with its evidence, or as QuPath, elastix, ITK and SimpleITK read it. What
    the evidence does not bear is not written: exit 2, with the reason.""",
    pairs: """Sample pairs of an H&E and its partner, for `distill`.

    Of one section, or of a table with a row per section (columns he and partner; case,
    as, relation, approved_by, mpp, partner_mpp, transform, landmarks,
    partner_landmarks, landmark_pairs, in_register, kind and others). A recipe reads
    them by data.folder = "PAIRS.zarr".""",
    distill: """Make a student by a recipe, or go on with a run that was stopped.

    A recipe fits a head on frozen features, trains an encoder with or without dense
    partners, or runs a whole table of such trainings ([experiment]).""",
    evaluate: """Score a student on labelled tiles.

    Reports accuracy, balanced accuracy, the confusion matrix, figures per class, and
    95 % intervals over cases.""",
    export: """Export a class map or a student for other programs.

    A store becomes GeoJSON, OME-Zarr or CSV; a student becomes a WSInfer model.""",
}
for command, text in _COMMANDS.items():
    app.command(help=text)(command)


def _print_version(value: bool) -> None:
    if value:
        print(f"histodistill {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    _version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Print the version and exit.",
        ),
    ] = False,
    _debug: Annotated[
        bool,
        typer.Option(
            "--debug", help="Show the traceback of an error; may stand anywhere."
        ),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Parameters
    ----------
    arguments : sequence of str, optional
        Without the program's name; those of the process by default.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    # Anywhere, since people add it at the end of a line that failed.
    debug = "--debug" in given
    given = [word for word in given if word != "--debug"]
    # Where there is no home it says so at length; our own note of the cache is enough.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    run = typer.main.get_command(app)
    try:
        code = run.main(given, prog_name="histodistill", standalone_mode=False)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _fail("Interrupted.", INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output has seen enough (`| head`); silence the last flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return FAILURE
    except Exception as error:  # noqa: BLE001 - whatever it is, a sentence and a code
        if debug:
            print(traceback_of(error), file=sys.stderr)
        _tell_cache()
        return _fail(*_explain(error))
    _tell_cache()
    # typer hands back the code of an explicit exit, and None after a plain return.
    if code == INTERRUPTED:
        print("Interrupted.", file=sys.stderr)
    return code if isinstance(code, int) else 0


def _tell_cache() -> None:
    """Say that nothing of this command was kept in the cache, if so."""
    if note := cache_note():
        tell(note)


def _explain(error: Exception) -> tuple[str, int]:
    """Return a sentence and an exit code for any exception."""
    if isinstance(error, HistodistillError):
        return str(error), error.exit_code
    if type(error).__name__ == "Abort":
        return "Interrupted.", INTERRUPTED
    # typer's own errors, whose module depends on its version.
    wording = getattr(error, "format_message", None)
    if callable(wording):
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "histodistill"
        message = " ".join(str(wording()).split())
        return f"{message} Try `{path} --help`.", BAD_INPUT
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}.", FAILURE
    message = " ".join(str(error).split()) or "no message"
    return (
        f"Unexpected {type(error).__name__}: {message} (run again with --debug and "
        "report it).",
        FAILURE,
    )


def _fail(message: str, code: int) -> int:
    line = bounded_message(" ".join(message.split()))
    print(printable(f"histodistill: {line}"), file=sys.stderr)
    return code

"""``classify``: one slide into its folder, and several with a summary beside them."""

from __future__ import annotations

import shutil
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_histodistill.addresses import shown, url_of
from napari_histodistill.cli.console import follow, interruptible, tell
from napari_histodistill.cli.outputs import (
    claimed_folder,
    refuse_as_store,
    refuse_occupied,
    refuse_others,
    write_json,
)
from napari_histodistill.cli.scheduler import failed, failed_facts, give_cohort
from napari_histodistill.cli.trust import class_facts, judged, trust_text
from napari_histodistill.errors import Cancelled, InputError
from napari_histodistill.files import read_plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from napari_histodistill.cli.console import Answer
    from napari_histodistill.export.cohort_table import SlideSummary
    from napari_histodistill.maps import ClassMap
    from napari_histodistill.maps.cohort import SlideResult, SlideRun, SlideTask
    from napari_histodistill.slides import Slide
    from napari_histodistill.students.spec import StudentSpec

_MAX_SUMMARY_BYTES = 2**26
_PAGE, _FACTS, _TABLE = "summary.html", "summary.json", "summary.csv"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifyOptions:
    """How squares become classes; see the options of ``classify``."""

    min_confidence: float
    like_only: bool
    split: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Classified:
    """A slide that was classified: for programs, for people, and for a summary."""

    facts: dict[str, Any]
    text: str
    summary: SlideSummary
    spec: StudentSpec


def tell_notes(run: SlideRun) -> None:
    """Print on stderr what there is to know of a slide."""
    for note in run.slide.info.notes:
        tell(f"{run.slide.name}: {note}")


# --- one slide ----------------------------------------------------------------------


def classify_slide(
    task: SlideTask,
    out: Path,
    options: ClassifyOptions,
    *,
    began: float,
    noted: bool = False,
    before_writing: Callable[[], object] = lambda: None,
) -> Classified:
    """Classify a slide and write its files.

    Parameters
    ----------
    task : SlideTask
        The slide.
    out : Path
        Folder of its files.
    options : ClassifyOptions
        How squares become classes.
    began : float
        ``time.perf_counter()`` when its time began.
    noted : bool
        Whether its notes were told before.
    before_writing : callable
        Called when the slide has been checked.

    Raises
    ------
    HistodistillError
        If it cannot be done; nothing was written if the slide is at fault.
    """
    from napari_histodistill.export.record import why_empty
    from napari_histodistill.maps import class_map
    from napari_histodistill.maps.cohort import open_task
    from napari_histodistill.students.trust import trust_facts

    slide = task.slide
    with ExitStack() as files:
        plan = files.enter_context(open_task(task))
        if not noted:
            tell_notes(plan)
        digest = plan.slide.info.section
        refuse_occupied(
            out, "class_map.geojson", "class_map.zarr", "areas.csv", "figure.png"
        )
        refuse_as_store(out, task.store, slide)
        _refuse_foreign(out, slide, digest)
        runner, cells = plan.student, plan.cells()
        before_writing()
        files.enter_context(claimed_folder(out))
        tell(f"{runner.name} on {runner.device.label}: {runner.device.reason}")
        with interruptible() as cancel:
            last = follow(plan.reports(cancel, cells=cells), plan.slide.name)
            trust = judged(plan, cells, cancel, every=options.like_only)
        # The store may hold cells of other runs, or be too old to know the bounds.
        found = replace(
            class_map(task.store, runner, cells=cells).at_least(options.min_confidence),
            trust=trust,
            bounds_origin=plan.slide.info.bounds_origin,
            origin_um=plan.slide.info.origin_um,
        )
        found = found.like_only() if options.like_only else found
        areas = found.areas()
        if empty := why_empty(found, headless=True):
            tell(f"{plan.slide.name}: {empty}")
        result = {
            "trust": trust_facts(trust),
            "slide": shown(slide),
            "slide_digest": digest,
            "student": runner.name,
            "student_digest": runner.spec.digest,
            "stain_normalised": task.stain_normalise,
            "icc": task.icc,
            "mpp": runner.spec.mpp,
            "slide_mpp": {
                "value": plan.grid.slide_mpp.mean,
                "source": plan.grid.slide_mpp.source,
            },
            "mode": task.mode,
            "device": runner.device.label,
            "stride_um": plan.grid.stride_um,
            "cells": last.done - last.unreadable,
            "unreadable": last.unreadable,
            "reading": last.reading,
            "classes": {a.name: class_facts(a) for a in areas},
            "unclassified": last.done - last.unreadable - sum(a.cells for a in areas),
            "calibration": (
                None
                if runner.spec.calibration is None
                else runner.spec.calibration.model_dump()
            ),
            "min_confidence": options.min_confidence,
            "like_only": options.like_only,
            "nothing_shown": empty,
            "outputs": {
                **_write_class_map(
                    found, out, plan.slide, runner.name, split=options.split
                ),
                "store": str(task.store),
                "summary": str(out / "summary.json"),
            },
            "seconds": round(time.perf_counter() - began, 2),
        }
        write_json(out / "summary.json", result)
        text = [*trust_text(trust, runner.spec), "", _class_text(result)]
        text += [empty] if empty else []
        return Classified(
            facts=result,
            text="\n".join(text),
            summary=_summary(result, found, slide, out),
            spec=runner.spec,
        )


def _summary(
    facts: dict[str, Any], found: ClassMap, slide: Path, out: Path
) -> SlideSummary:
    from napari_histodistill.export.cohort_table import SlideSummary

    return SlideSummary(
        name=_name(slide),
        trust=found.trust,
        areas=found.areas(),
        um_per_px=facts["slide_mpp"]["value"],
        um_per_px_source=facts["slide_mpp"]["source"],
        cells=facts["cells"],
        seconds=facts["seconds"],
        figure=(out / "figure.png").read_bytes(),
    )


def _name(slide: Path) -> str:
    """Return a slide's name without its folder; an address without its secrets."""
    return shown(slide) if url_of(slide) else slide.name


def _write_class_map(
    found: ClassMap, out: Path, slide: Slide, student: str, *, split: bool
) -> dict[str, str]:
    from napari_histodistill.export import (
        write_areas,
        write_class_labels,
        write_geojson,
    )
    from napari_histodistill.export.figure import overview, write_figure
    from napari_histodistill.export.record import why_empty

    geojson, labels = out / "class_map.geojson", out / "class_map.zarr"
    picture = out / "figure.png"
    outputs = {}
    if why_empty(found):
        # No empty file, and none of an earlier run that would be taken for this one's.
        geojson.unlink(missing_ok=True)
        if labels.exists():
            shutil.rmtree(labels)
    else:
        outputs["geojson"] = write_geojson(found, geojson, split=split)
        outputs["ome_zarr"] = write_class_labels(found, labels)
    outputs["csv"] = write_areas(found, out / "areas.csv")
    outputs["figure"] = write_figure(found, overview(slide), student, picture)
    return {name: str(path) for name, path in outputs.items()}


def _refuse_foreign(out: Path, slide: Path, digest: str) -> None:
    """Refuse a folder that already holds another slide's results.

    Older summaries do not hold the slide's digest; they are compared by name.
    """
    import json

    summary = out / "summary.json"
    if not summary.exists() and not summary.is_symlink():
        return
    try:
        found = json.loads(read_plain(summary, _MAX_SUMMARY_BYTES))
        if _is_of_several(found):
            msg = (
                f"-o {out}: the folder holds the results of several slides; choose "
                f"another one for {slide.name}."
            )
            raise InputError(msg)
        other = Path(found["slide"])
        same = found.get("slide_digest", digest) == digest
    except (ValueError, KeyError, TypeError, OSError, RecursionError):
        msg = (
            f"-o {out}: its summary.json was not written by this program; choose "
            "another folder."
        )
        raise InputError(msg) from None
    whose, mine = other.name, slide.name
    if whose == mine:
        if same:
            return
        whose, mine = str(other), str(slide)
    if whose == mine:
        whose = f"another {slide.name}, or of this one before it changed"
    msg = (
        f"-o {out}: the folder holds the results of {whose}; choose another one for "
        f"{mine}."
    )
    raise InputError(msg)


def _class_text(result: dict[str, Any]) -> str:
    wide = max(len(name) for name in result["classes"])
    lines = [
        f"{name:{wide}}  {entry['mm2']:9.3f} mm²  {entry['cells']:6} squares"
        f"{_left_out(entry)}"
        for name, entry in result["classes"].items()
    ]
    lines += ["", *(str(path) for path in result["outputs"].values())]
    return "\n".join(lines)


def _left_out(entry: dict[str, Any]) -> str:
    """Return what a class's area would be with the unlike squares, and how many."""
    if entry["all_mm2"] > entry["mm2"]:
        return f"  ({entry['all_mm2']:.3f} mm² with unlike squares)"
    if entry["unlike"]:
        return f"  ({entry['unlike']} of {entry['judged']} judged are unlike)"
    return ""


# --- several slides -----------------------------------------------------------------


def refuse_reserved(slides: Sequence[Path]) -> None:
    """Refuse slides whose files would lie where others go.

    Raises
    ------
    InputError
        If a store would lie where the class map goes; of several slides, if two would
        share a folder, or one has no name or that of a summary.
    """
    for slide in slides:
        if slide.stem.lower() == "class_map":
            msg = (
                f"{slide}: its store would be {slide.stem}.zarr, where the class map "
                "is written; rename the slide."
            )
            raise InputError(msg)
    if len(slides) == 1:
        return
    first: dict[str, Path] = {}
    for slide in slides:
        folder = slide.stem.casefold()  # some disks tell no capitals apart
        if folder in {"", "..", _PAGE, _FACTS, _TABLE}:
            msg = f"{slide}: no folder can have its name; classify it alone."
            raise InputError(msg)
        other = first.setdefault(folder, slide)
        if other is not slide:
            msg = (
                f"{slide}: its folder would have the same name as that of {other} "
                f"({slide.stem}); classify them into different folders."
            )
            raise InputError(msg)


def refuse_summaries(out: Path) -> None:
    """Refuse a folder for several slides in which others have the summaries' names.

    Raises
    ------
    InputError
        If one of them is there and is no earlier summary of several slides.
    """
    from napari_histodistill.export import cohort_page, cohort_table
    from napari_histodistill.export.safe_writing import holds_ours

    refuse_occupied(out)
    refuse_others(
        out,
        {
            _PAGE: partial(holds_ours, is_ours=cohort_page.is_ours),
            _TABLE: partial(holds_ours, is_ours=cohort_table.is_ours),
            _FACTS: _holds_facts,
        },
        "a summary of several slides",
    )


def classify_slides(
    answer: Answer,
    good: Sequence[SlideTask],
    refused: Sequence[SlideResult],
    tasks: Sequence[SlideTask],
    out: Path,
    options: ClassifyOptions,
    *,
    began: float,
) -> None:
    """Classify one slide after the other, each into its folder, and sum them up.

    If one fails, the others go on, and the summaries name it.

    Parameters
    ----------
    answer : Answer
        Is given the summary.
    good, refused : sequence
        What can be begun, and results of slides that cannot.
    tasks : sequence of SlideTask
        All of them, in the order of the summary.
    out : Path
        Folder of the summaries.
    options : ClassifyOptions
        How squares become classes.
    began : float
        ``time.perf_counter()`` when the command began.

    Raises
    ------
    HistodistillError
        As :func:`give_cohort`; :class:`Cancelled` after Ctrl-C.
    """
    from napari_histodistill.maps.cohort import SlideResult

    done: dict[SlideTask, Classified] = {}
    results = {result.task: result for result in refused}
    with ExitStack() as files:

        @cache
        def claim() -> Path:
            return files.enter_context(claimed_folder(out))

        for task in good:
            try:
                done[task] = classify_slide(
                    task,
                    out / task.slide.stem,
                    options,
                    began=time.perf_counter(),
                    noted=True,
                    before_writing=claim,
                )
            except Cancelled:
                raise
            except Exception as error:  # noqa: BLE001 - the others go on
                results[task] = failed(task, error)
            else:
                results[task] = SlideResult(task=task)
        ordered = [results[task] for task in tasks]
        facts = _cohort_facts([done[t] for t in tasks if t in done], ordered, out)
        facts["seconds"] = round(time.perf_counter() - began, 2)
        if done:
            _write_summaries(facts, done, ordered, out)
    give_cohort(answer, facts, _cohort_text(facts, done.values()), ordered)


def _cohort_facts(
    done: Sequence[Classified], results: Sequence[SlideResult], out: Path
) -> dict[str, Any]:
    slides = [found.facts for found in done]
    verdicts = [facts["trust"]["verdict"] for facts in slides]
    names = (_PAGE, _FACTS, _TABLE) if done else ()
    return {
        "slides": slides,
        "failed": failed_facts(results),
        "totals": {
            "slides": len(results),
            "failed": len(results) - len(slides),
            "verdicts": {
                word: verdicts.count(word) for word in dict.fromkeys(verdicts)
            },
            "cells": sum(facts["cells"] for facts in slides),
            "unreadable": sum(facts["unreadable"] for facts in slides),
            "classes": _class_totals(slides),
        },
        "files": {Path(name).suffix[1:]: str(out / name) for name in names},
    }


def _class_totals(slides: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    totals: dict[str, dict[str, float]] = {}
    for facts in slides:
        for name, entry in facts["classes"].items():
            total = totals.setdefault(name, {"cells": 0, "mm2": 0.0, "all_mm2": 0.0})
            for key in total:
                total[key] += entry[key]
    return totals


def _write_summaries(
    facts: dict[str, Any],
    done: dict[SlideTask, Classified],
    results: Sequence[SlideResult],
    out: Path,
) -> None:
    from napari_histodistill.export.cohort_page import write_cohort_page
    from napari_histodistill.export.cohort_table import write_cohort

    rows = [
        done[result.task].summary if result.task in done else _failure(result)
        for result in results
    ]
    first = next(iter(done.values()))
    refuse_summaries(out)  # hours may have passed
    write_cohort_page(
        rows,
        out / _PAGE,
        student=first.spec.name,
        notes=_notes(first.facts, first.spec),
    )
    write_cohort(rows, out / _TABLE)
    write_json(out / _FACTS, facts)


def _failure(result: SlideResult) -> SlideSummary:
    from napari_histodistill.export.cohort_table import SlideSummary

    slide = result.task.slide
    # Pages are passed on: a folder's name is no part of them.
    error = result.error.replace(str(slide), _name(slide))
    return SlideSummary(name=_name(slide), error=error)


def _notes(facts: dict[str, Any], spec: StudentSpec) -> list[str]:
    """Return sentences on the student and the settings."""
    from napari_histodistill.students.model_card import in_words

    settings = [f"{spec.name} sees {spec.mpp:g} µm/px", f"mode {facts['mode']}"]
    if facts["min_confidence"]:
        settings.append(f"squares below {facts['min_confidence']:g} have no class")
    if facts["like_only"]:
        settings.append("unlike squares are left out of areas")
    if facts["stain_normalised"]:
        settings.append("stain normalised")
    if facts["icc"]:
        settings.append("colours by ICC profile")
    notes = ["; ".join(settings) + "."]
    return notes if spec.calibration is None else [*notes, in_words(spec.calibration)]


def _cohort_text(facts: dict[str, Any], done: Iterable[Classified]) -> str:
    blocks = [f"{found.summary.name}\n{found.text}" for found in done]
    return "\n\n".join([*blocks, "\n".join(facts["files"].values())])


def _is_of_several(found: object) -> bool:
    return isinstance(found, dict) and {"slides", "failed", "totals"} <= found.keys()


def _holds_facts(path: Path) -> bool:
    import json

    try:
        return _is_of_several(json.loads(read_plain(path, _MAX_SUMMARY_BYTES)))
    except (ValueError, OSError, RecursionError):
        return False

"""From a run's folder to ``report.html`` beside its student."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from PIL import Image

from napari_histodistill.distill.layers.partners import to_look_at
from napari_histodistill.distill.pairs.loading import load_pairs
from napari_histodistill.distill.pairs.lost import Lost, say_reason
from napari_histodistill.distill.pairs.store import (
    StoredPartner,
    is_pairs,
    read_pairs,
)
from napari_histodistill.distill.recipes.files import recipe_text
from napari_histodistill.distill.recipes.form import describe, text_of, value_at
from napari_histodistill.distill.runs.events import health_in_words, read_events
from napari_histodistill.distill.runs.folder import (
    CURVES,
    LOCK,
    REPORT,
    STUDENT,
    check_run,
    read_run,
    run_data,
)
from napari_histodistill.distill.runs.judged import (
    JudgedRun,
    judged,
    judged_runs,
    judged_seeds,
)
from napari_histodistill.distill.runs.kin import controls_of, other_seeds, shown_beside
from napari_histodistill.distill.runs.report_names import ReportNames, names_for
from napari_histodistill.distill.runs.report_page import (
    ReportFacts,
    ReportTwin,
    report_html,
)
from napari_histodistill.distill.scoring.figures import draw_curves
from napari_histodistill.errors import ComputeError, HistodistillError, InputError
from napari_histodistill.files import write_whole, written_beside
from napari_histodistill.lock import WriterLock
from napari_histodistill.students.bundle import load_spec

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from napari_histodistill.distill.pairs.loading import PairSet, PairSplit
    from napari_histodistill.distill.pairs.provenance import SectionOrigin
    from napari_histodistill.distill.recipes.config import DistillConfig
    from napari_histodistill.distill.recipes.form import FieldGroup
    from napari_histodistill.distill.runs.report_page import Fact
    from napari_histodistill.students.spec import Metric, StudentSpec

    Events = Sequence[dict[str, Any]]
    Origins = Sequence[SectionOrigin | None]

TWINS = 6
TWIN_PX = 120
NAMED_REGIONS = 12
"""More regions than this are counted, not named."""

Ending = Literal["finished", "stopped"]

_DAMAGED = (HistodistillError, OSError, LookupError, TypeError, ValueError, MemoryError)
"""What reading the files of another run may raise; this one ended well all the same."""


def write_report(
    folder: Path,
    config: DistillConfig,
    split: PairSplit,
    *,
    ending: Ending = "finished",
) -> Path:
    """Write ``report.html`` and ``curves.png`` of a run that has a student.

    Parameters
    ----------
    folder : Path
        Folder of the run.
    config : DistillConfig
        Its recipe.
    split : PairSplit
        Its pairs.
    ending : {"finished", "stopped"}
        How the run ended.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    InputError
        If its student cannot be read.
    ComputeError
        If the page cannot be written; the student is complete.
    """
    target = folder / REPORT
    try:
        with written_beside(folder / CURVES) as beside:
            draw_curves(read_events(folder), beside)
        facts = gather(folder, config, split, ending)
        write_whole(target, report_html(facts))
    except OSError as error:
        msg = f"{target} cannot be written ({error}): the student itself is complete."
        raise ComputeError(msg) from error
    return target


def rewrite_beside(folder: Path) -> Iterator[str]:
    """Write the reports again that show the figures of a run that has just ended.

    They are those of its other seeds and, if it was trained without a partner, of the
    same recipe with one. A run that another process works on, that did not end or that
    is damaged keeps its report.

    Parameters
    ----------
    folder : Path
        Folder of the run that has just ended.

    Yields
    ------
    str
        Report that is written now, or why one was left as it was.
    """
    for one in shown_beside(folder / STUDENT):
        run = one.bundle.parent
        if not (run / REPORT).is_file():
            continue  # it was trained without one
        yield f"writing the report of {run.name} again"
        try:
            _rewrite(run)
        except _DAMAGED as error:
            yield f"the report of {run.name} stays as it was: {error}"


def _rewrite(run: Path) -> None:
    """Write the report of an earlier run, which nobody else may write to meanwhile."""
    if run.is_symlink():
        msg = f"{run} is a link."
        raise InputError(msg)
    check_run(run)
    lock = WriterLock(run / LOCK)
    try:
        last = read_events(run)[-1]["kind"]
        if last not in get_args(Ending):
            msg = f"{run} was interrupted."
            raise InputError(msg)
        config, place = read_run(run)
        split = load_pairs(config, Path(place["data"]))
        write_report(run, config, split, ending=last)
    finally:
        lock.release()


def gather(
    folder: Path,
    config: DistillConfig,
    split: PairSplit,
    ending: Ending,
) -> ReportFacts:
    """Return the facts of the report; see :func:`write_report`."""
    events = read_events(folder)
    spec = load_spec(folder / STUDENT)
    health = health_in_words(events)
    names = names_for(folder, config, split, threads=_threads(events))
    others = [load_spec(one.bundle) for one in other_seeds(folder / STUDENT)]
    return ReportFacts(
        title=f"Training report: {config.title}",
        summary=_summary(events, ending),
        warnings=(*((health,) if health else ()), *_changes(events)),
        measured=(
            *(_metric(metric, others) for metric in spec.metrics),
            *_judged(events, judged_seeds(folder / STUDENT), names),
        ),
        alone=tuple(_alone(folder / STUDENT, spec, events)) if config.dense else (),
        course=tuple(_course(events, config)),
        data=tuple(_data(folder, names, split, spec)),
        split=tuple(_split(split, names)),
        settings=tuple(_settings(names.config)),
        curves=(folder / CURVES).read_bytes(),
        twins=tuple(_twins(names, split)),
        where=names.where,
        command=names.command,
        recipe=recipe_text(names.config),
    )


def _summary(events: Events, ending: Ending) -> str:
    done = max((e["step"] for e in events if e["kind"] == "step"), default=0)
    steps = max((e["steps"] for e in events), default=0)
    if ending == "finished":
        return f"Finished after {steps:,} steps."
    return f"Stopped at step {done:,} of {steps:,}; the best student so far was kept."


def _changes(events: Events) -> Iterator[str]:
    for event in events:
        if event["kind"] == "changed":
            yield f"Changed after step {event['step']}: {event['message']}"


def _metric(metric: Metric, others: Sequence[StudentSpec]) -> Fact:
    interval = ""
    if metric.low is not None and metric.high is not None:
        interval = f" (95 % interval {metric.low:.3f} to {metric.high:.3f})"
    same = [m for spec in others for m in spec.metrics if m.name == metric.name]
    beside = _beside([f"{m.value:.3f}" for m in same])
    return metric.name, f"{metric.value:.3f}{interval}; {metric.protocol}{beside}"


def _judged(
    events: Events, others: Sequence[JudgedRun], names: ReportNames
) -> Iterator[Fact]:
    """Yield figures of the held-out pairs, each beside those of the other seeds."""
    best = judged(events)
    if best is None:
        yield "nothing", "No pairs were held out, so nothing is measured here."
        return
    loss = _beside([f"{other.loss:.4g}" for other in others])
    yield "lowest loss", f"{best.loss:.4g} after step {best.step:,}{loss}"
    if best.retrieval is not None and best.chance is not None:
        found = [f"{o.retrieval:.0%}" for o in others if o.retrieval is not None]
        yield (
            "own partner found",
            f"{best.retrieval:.0%} of the time, among {round(1 / best.chance)} "
            f"(by chance {best.chance:.1%}){_beside(found)}",
        )
    for k, (dense, share) in enumerate(
        zip(names.config.dense, best.retrievals, strict=False)
    ):
        name = dense.column or "the same layer at its full resolution"
        seeds = [f"{o.retrievals[k]:.0%}" for o in others if k < len(o.retrievals)]
        yield f"own partner found: {name}", f"{share:.0%} of the time{_beside(seeds)}"
    if best.effective_rank is not None:
        ranks = [o.effective_rank for o in others if o.effective_rank is not None]
        yield (
            "effective rank",
            f"{best.effective_rank:.1f} (1 would mean that embeddings lie on a "
            f"line and hardly differ){_beside([f'{rank:.1f}' for rank in ranks])}",
        )
    if not others:
        yield "noise", f"not measured: train a second seed with {names.other_seed}"


def _beside(figures: Sequence[str]) -> str:
    """Return the same figure of other seeds, in words."""
    if not figures:
        return ""
    whose = "another seed" if len(figures) == 1 else f"{len(figures)} other seeds"
    return f"; {whose}: {', '.join(figures)}"


def _alone(bundle: Path, spec: StudentSpec, events: Events) -> Iterator[Fact]:
    """Yield figures beside those of all seeds that were trained without the partner.

    Loss and retrieval are not among them: without a partner, views of one tile are
    compared, which is another task.
    """
    controls = controls_of(bundle)
    if not controls:
        yield "nothing yet", "train the same pairs and preset without the partner"
        return
    specs = [load_spec(one.bundle) for one in controls]
    for metric in spec.metrics:
        same = [m.value for s in specs for m in s.metrics if m.name == metric.name]
        yield from _beside_alone(metric.name, metric.value, same, 3)
    best = judged(events)
    if best is not None and best.effective_rank is not None:
        ranks = [one.effective_rank for one in judged_runs(controls)]
        known = [rank for rank in ranks if rank is not None]
        yield from _beside_alone("effective rank", best.effective_rank, known, 1)


def _beside_alone(
    name: str, mine: float, alone: Sequence[float], digits: int
) -> Iterator[Fact]:
    """Yield a figure beside the same without the partner, and what seeds differ by."""
    if not alone:
        return
    listed = ", ".join(f"{figure:.{digits}f}" for figure in alone)
    words = f"{mine:.{digits}f} with it; {listed} without it; "
    if len(alone) == 1:
        yield name, f"{words}noise not measured: train a second seed without it"
        return
    noise, gain = max(alone) - min(alone), mine - float(np.mean(alone))
    most = "" if len(alone) == 2 else "at most "
    within = "within" if abs(gain) <= noise else "more than"
    yield (
        name,
        f"{words}two seeds without it differ by {most}{noise:.{digits}f} (noise); the "
        f"difference with it, {gain:+.{digits}f}, is {within} that",
    )


def _course(events: Events, config: DistillConfig) -> Iterator[Fact]:
    starts = [e for e in events if e["kind"] == "started"]
    if starts:
        yield "where", starts[-1]["message"]
    seconds = _seconds(events)
    yield "how long", f"{_duration(seconds)} of training, pauses included"
    if len(starts) > 1:
        yield "started", f"{len(starts)} times: it was stopped or ended, and continued"
    paces = [e["pairs_per_second"] for e in events if e.get("pairs_per_second")]
    if paces:
        yield "pace", f"{np.median(paces):.0f} pairs per second (median)"
    judged = config.data.validation_share or config.data.validate_on
    kept = "the best on the held-out pairs" if judged else "the last step"
    yield "kept", kept if config.schedule.keep == "best" else "the last step"


def _seconds(events: Events) -> float:
    """Return the time from start to last report, added up over all starts."""
    total, begun, before = 0.0, None, None
    for event in events:
        at = float(event["time"])
        if event["kind"] == "started":
            total += 0.0 if begun is None or before is None else before - begun
            begun = at
        before = at
    return total + (0.0 if begun is None or before is None else before - begun)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _threads(events: Events) -> int | None:
    """Return the CPU threads of the run's last start; None on another device."""
    starts = [e for e in events if e["kind"] == "started"]
    return starts[-1].get("threads") if starts else None


def _data(
    folder: Path, shown: ReportNames, split: PairSplit, spec: StudentSpec
) -> Iterator[Fact]:
    config = shown.config
    yield "data", config.data.description
    yield "attribution", config.data.attribution
    yield "licence", config.data.licence
    sparse = config.sparse
    yield (
        "the student sees",
        f"{sparse.tile_px} px at {spec.mpp:g} µm/px ({spec.tile_um:.0f} µm)",
    )
    stored = _stored_partners(run_data(folder))
    if not config.dense:
        yield "partner", "none: two views of the same tile"
    for column, dense in zip(shown.columns, config.dense, strict=True):
        name = dense.column or "the same layer at its full resolution"
        known = stored.get(column)
        inside = "" if known is None else ", ".join(known.names[:8])
        control = {
            "shuffled": "; a control: each tile has another case's partner",
            "shuffled_within_case": (
                "; a control: each tile has the partner of another of its section"
            ),
            "shuffled_nearby": "; a control: each tile has a neighbour's partner",
            "blank": "; a control: the mean of all in place of each",
        }.get(dense.partner, "")
        size = "" if dense.kind == "expression" else f", {dense.tile_px} px"
        listed = f" ({inside})" if inside else ""
        read = "" if known is None else _how_read(known)
        yield "partner", f"{name}: {dense.kind}{size}{listed}{read}{control}"
    data = run_data(folder)
    origins = read_pairs(data).origins if is_pairs(data) else ()
    yield from _origins(origins, shown)
    yield from _confidence(split.train.confidence, origins, shown)


def _confidence(
    sure: npt.NDArray[np.float32], origins: Origins, shown: ReportNames
) -> Iterator[Fact]:
    """Return how surely pairs show the same tissue, or that it is not known."""
    words = []
    if sure.min() < 1:
        words = [f"{np.median(sure):.0%} (median), at least {sure.min():.0%}"]
    partners = [p for one in origins if one is not None for p in one.partners]
    unknown = [p for p in partners if p.error_um is None]
    if unknown and shown.config.dense:
        all_are = len(unknown) == len(partners)
        words.append(
            "the alignment's error is not known: pairs count in full"
            if all_are
            else "where an alignment's error is not known, pairs count in full"
        )
    if words:
        yield "confidence", "; ".join(words)


def _origins(origins: Origins, shown: ReportNames) -> Iterator[Fact]:
    """Return where every section comes from, where the pairs say it."""
    names = shown.config.report is not None and shown.config.report.names
    for k, origin in enumerate(origins, start=1):
        if origin is not None:
            case = f" ({origin.case})" if names and origin.case else ""
            yield f"section {k}{case}", origin.say(names=names)


def _stored_partners(data: Path) -> dict[str, StoredPartner]:
    if not is_pairs(data):
        return {}
    return {p.name: p for p in read_pairs(data).partners}


def _how_read(partner: StoredPartner) -> str:
    """Return how a layer was read, where there was a choice, for a sentence."""
    if partner.kind == "mask" and partner.origin.get("reading") == "classes":
        return f"; unlabelled places are {partner.unlabelled.value}"
    stains = partner.origin.get("stains")
    if not stains:
        return ""
    vectors = " and ".join(
        "(" + ", ".join(f"{v:.2f}" for v in stains[name]) + ")"
        for name in ("haematoxylin", "marker")
    )
    return f"; stain vectors {vectors}, {stains['origin']}"


def _split(split: PairSplit, names: ReportNames) -> Iterator[Fact]:
    for name, part in (("trained on", split.train), ("held out", split.validation)):
        if part is None:
            yield name, "nothing"
            continue
        cases, counts = np.unique(part.cases, return_counts=True)
        listed = ", ".join(
            f"{names.cases[str(case)]} ({count})"
            for case, count in zip(
                cases[:NAMED_REGIONS], counts[:NAMED_REGIONS], strict=True
            )
        )
        more = (
            f" and {len(cases) - NAMED_REGIONS} more"
            if len(cases) > NAMED_REGIONS
            else ""
        )
        yield (
            name,
            f"{len(part):,} pairs of {len(cases)} regions or cases: {listed}{more}",
        )
    left_out = (
        f"; left out were {say_reason(Lost.STRADDLES, split.left_out)}"
        if split.left_out
        else ""
    )
    yield (
        "how",
        "by whole regions or cases: none has pairs on both sides, and no tile trained "
        f"on shows held-out tissue{left_out}",
    )


def _settings(config: DistillConfig) -> Iterator[tuple[str, tuple[Fact, ...]]]:
    def rows(group: FieldGroup) -> tuple[Fact, ...]:
        return tuple(
            (f.title, text_of(f, value_at(config, f.path))) for f in group.fields
        )

    def walk(group: FieldGroup, above: str) -> Iterator[tuple[str, tuple[Fact, ...]]]:
        name = f"{above} › {group.title}" if above else group.title
        yield name, rows(group)
        for inside in group.groups:
            yield from walk(inside, name if group.path else "")

    yield from walk(describe(config), "")


def _twins(names: ReportNames, split: PairSplit) -> Iterator[ReportTwin]:
    """Return held-out pairs, or pairs trained on where none are held out."""
    pairs: PairSet = split.train if split.validation is None else split.validation
    which = "trained on" if split.validation is None else "held out"
    for row in np.unique(np.linspace(0, len(pairs) - 1, TWINS).astype(int)).tolist():
        seen = [p for p in pairs.partners if p.kind != "expression"]
        dense = [to_look_at(p.values[row], p.kind) for p in seen]
        sure = float(pairs.confidence[row])
        words = f"{which}, {names.cases[str(pairs.cases[row])]}"
        words += f"; confidence {sure:.0%}" if names.config.dense and sure < 1 else ""
        yield ReportTwin(tuple(map(_png, [pairs.sparse[row], *dense])), words)


def _png(pixels: Any) -> bytes:
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if max(image.size) > 2 * TWIN_PX:
        image = image.resize((2 * TWIN_PX, 2 * TWIN_PX), Image.Resampling.BICUBIC)
    written = io.BytesIO()
    image.save(written, format="png")
    return written.getvalue()

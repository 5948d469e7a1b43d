"""``pairs``: pairs of one section, or of a table of sections, from files."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_histodistill.cli.console import answering, interruptible, tell
from napari_histodistill.cli.options import (
    ImageOption,
    JsonOption,
    RgbOption,
    slide_argument,
)
from napari_histodistill.cli.sections.options import (
    AnywayOption,
    ApprovedOption,
    FixedChoice,
    FixedOption,
    GeneScoreOption,
    GenesOption,
    HeMppOption,
    InRegisterOption,
    KindOption,
    LandmarkPairsOption,
    LandmarksOption,
    LandmarkUnitOption,
    LibraryOption,
    MostGenesOption,
    PartnerImageOption,
    PartnerMppOption,
    PresetChoice,
    RelationChoice,
    RelationOption,
    ReportOption,
    SortOption,
    StainVectorsOption,
    TransformOption,
    TransformUnitOption,
    UnlabelledOption,
    section_files,
)
from napari_histodistill.cli.sections.outputs import (
    PROGRESS_S,
    alignment_facts,
    alignment_text,
    check_output,
    is_page,
    write_page,
)
from napari_histodistill.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_histodistill.distill.pairs.pool import PairPool
    from napari_histodistill.distill.sections.batch import BatchStep, PairedSection
    from napari_histodistill.distill.sections.files import SectionFiles
    from napari_histodistill.distill.sections.table import SectionRow
    from napari_histodistill.running import CancelToken

_TABLES = (".csv", ".tsv", ".txt")


def pairs(
    he: Annotated[
        Path,
        slide_argument(
            "HE|SECTIONS.csv", "The H&E, or a table with a row per section."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", metavar="PAIRS.zarr", help="Where the pairs go; a new name."
        ),
    ],
    partner: Annotated[
        Path | None, slide_argument("[PARTNER]", "Its partner; none for a table.")
    ] = None,
    transform: TransformOption = None,
    landmarks: LandmarksOption = None,
    landmark_pairs: LandmarkPairsOption = None,
    in_register: InRegisterOption = False,
    kind: KindOption = None,
    mpp: HeMppOption = None,
    partner_mpp: PartnerMppOption = None,
    image: ImageOption = None,
    partner_image: PartnerImageOption = None,
    rgb: RgbOption = False,
    sort: SortOption = None,
    unlabelled: UnlabelledOption = None,
    library: LibraryOption = "",
    genes: GenesOption = "",
    gene_score: GeneScoreOption = "",
    most_genes: MostGenesOption = None,
    stain_vectors: StainVectorsOption = None,
    tile_px: Annotated[
        int, typer.Option("--tile-px", min=8, max=4096, help="Edge of the H&E's tiles.")
    ] = 128,
    tile_mpp: Annotated[
        float,
        typer.Option(
            "--tile-mpp", metavar="µM", help="µm per pixel of the H&E's tiles."
        ),
    ] = 0.5,
    min_tissue: Annotated[
        float,
        typer.Option(
            "--min-tissue", min=0, max=1, help="Share of a tile that must be tissue."
        ),
    ] = 0.5,
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=1, help="At most so many pairs of each section."),
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Which pairs a limit draws.")
    ] = 0,
    transform_unit: TransformUnitOption = None,
    landmark_unit: LandmarkUnitOption = None,
    fixed: FixedOption = FixedChoice.he,
    relation: RelationOption = RelationChoice.unknown,
    approved_by: ApprovedOption = "",
    report: ReportOption = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            "--recipe",
            metavar="RECIPE.toml",
            help="Also write a recipe for these pairs, to train by and to edit.",
        ),
    ] = None,
    preset: Annotated[
        PresetChoice,
        typer.Option("--preset", help="What the recipe begins with."),
    ] = PresetChoice.quick,
    hold_out: Annotated[
        str,
        typer.Option(
            "--hold-out",
            metavar="CASE",
            help="A case or section that the recipe judges by and never trains on; by "
            "default a share of all regions.",
        ),
    ] = "",
    accept_anyway: AnywayOption = False,
    json: JsonOption = False,
) -> None:
    """Sample pairs of sections, for `distill`."""
    from napari_histodistill.distill.pairs.plan import Sampling
    from napari_histodistill.distill.pairs.pool import pool_pairs
    from napari_histodistill.distill.recipes.files import recipe_text
    from napari_histodistill.distill.sections.batch import paired_sections
    from napari_histodistill.distill.sections.recipe import recipe_of_sections
    from napari_histodistill.export.safe_writing import write_file

    began = time.perf_counter()
    said = section_files(
        he,
        partner or he,
        mpp=mpp,
        partner_mpp=partner_mpp,
        image=image,
        partner_image=partner_image,
        rgb=rgb,
        sort=sort,
        unlabelled=unlabelled,
        library=library,
        genes=genes,
        gene_score=gene_score,
        most_genes=most_genes,
        stain_vectors=stain_vectors,
        transform=transform,
        landmarks=landmarks,
        landmark_pairs=landmark_pairs,
        in_register=in_register,
        kind=kind,
        transform_unit=transform_unit,
        landmark_unit=landmark_unit,
        fixed=fixed,
        relation=relation,
        approved_by=approved_by,
    )
    with answering(as_json=json) as answer:
        if not 0.01 < tile_mpp <= 100:
            msg = f"--tile-mpp: {tile_mpp:g} is not a number of µm per pixel."
            raise InputError(msg)
        sampling = Sampling(
            mpp=tile_mpp,
            tile_px=tile_px,
            min_tissue=min_tissue,
            limit=limit,
            seed=seed,
        )
        rows = _rows(he, partner, said)
        _check_outputs(out, report, recipe, he, rows)
        with ExitStack() as stack, interruptible() as cancel:
            reports = paired_sections(
                stack,
                rows,
                sampling,
                anyway=accept_anyway,
                shown=report is not None,
                cancel=cancel,
            )
            found = _followed(reports, len(rows))
            pool = pool_pairs([one.plan for one in found])
            # Refused now, not after all pairs have been written.
            training = None
            if recipe is not None:
                training = recipe_of_sections(
                    pool, recipe, out, preset=preset.value, hold_out=hold_out
                )
            _write(out, pool, cancel)
            if recipe is not None and training is not None:
                write_file(recipe, recipe_text(training), is_recipe)
            if report is not None:
                write_page(report, [page for one in found for page in one.shown])
            facts = _facts(rows, found, pool)
        facts |= {
            "output": str(out),
            "report": None if report is None else str(report),
            "recipe": None if recipe is None else str(recipe),
            "seconds": round(time.perf_counter() - began, 2),
        }
        answer.give(facts, _text(facts))


def _rows(he: Path, partner: Path | None, said: SectionFiles) -> list[SectionRow]:
    """Return the sections: one, or those of a table."""
    from napari_histodistill.distill.sections.table import SectionRow, read_sections

    is_table = he.suffix.lower() in _TABLES
    if partner is not None:
        if is_table:
            msg = (
                f"{he}: this is a table, whose rows name partners: leave out {partner}."
            )
            raise InputError(msg)
        return [SectionRow("", said)]
    if not is_table:
        msg = f"{he}: name its partner too, or a table of sections (.csv)."
        raise InputError(msg)
    own = said.alignment
    if own.transform or own.landmarks or own.landmark_pairs:
        msg = f"{he}: a transform and landmarks of each section stand in its row."
        raise InputError(msg)
    return read_sections(he, said)


def is_recipe(head: str) -> bool:
    """Whether a file is a recipe of this program, by its beginning."""
    return head.startswith('arm = "')


def _check_outputs(
    out: Path,
    report: Path | None,
    recipe: Path | None,
    he: Path,
    rows: Sequence[SectionRow],
) -> None:
    """Refuse what cannot be written, before anything is computed."""
    parts = [part.files for row in rows for part in row.parts]
    inputs = [he, *(path for files in parts for path in (files.he, files.partner))]
    check_output(out, inputs, lambda _: False, "-o")
    if report is not None:
        check_output(report, inputs, is_page, "--report")
    if recipe is not None:
        check_output(recipe, inputs, is_recipe, "--recipe")


def _followed(
    reports: Iterator[BatchStep | PairedSection], count: int
) -> list[PairedSection]:
    """Follow a batch on stderr, and return its sections."""
    from napari_histodistill.distill.pairs.enlarging import why_enlarged
    from napari_histodistill.distill.sections.batch import PairedSection

    found: list[PairedSection] = []
    said = time.monotonic()
    for report in reports:
        if isinstance(report, PairedSection):
            found.append(report)
            name, pairs_here = report.plan.sparse.name, len(report.plan)
            tell(f"{len(found)} of {count}: {name}, {pairs_here:,} pairs")
            enlarged = why_enlarged(report.plan.sparse, report.plan.sampling)
            if enlarged:
                tell(enlarged)
        elif report.note:
            tell(report.note)
        elif time.monotonic() - said >= PROGRESS_S:
            said = time.monotonic()
            tell(f"{report.name}: {report.share:.0%} of the search")
    return found


def _write(out: Path, pool: PairPool, cancel: CancelToken) -> None:
    """Write the pairs of all sections, with progress on stderr."""
    from napari_histodistill.distill.pairs.store import write_pairs

    said = time.monotonic()
    for done in write_pairs(out, pool, cancel=cancel):
        if time.monotonic() - said >= PROGRESS_S:
            said = time.monotonic()
            tell(f"{done:,} of {len(pool):,} pairs written")


def _facts(
    rows: Sequence[SectionRow], found: Sequence[PairedSection], pool: PairPool
) -> dict[str, Any]:
    import numpy as np

    from napari_histodistill.distill.layers.partners import DenseLayer, Spots

    sections = [
        {
            "case": row.files.case,
            "section": name,
            "pairs": len(one.plan),
            "confidence": round(float(np.median(one.plan.confidence)), 3),
            "lost": {why.value: count for why, count in one.plan.lost.items()},
            "stains": [
                {"partner": p.name, **p.stains.content()}
                for p in one.plan.partners
                if isinstance(p, DenseLayer) and p.stains is not None
            ],
            "relation": row.files.relation.value,
            "alignments": [
                alignment_facts(part.files, alignment)
                for part, alignment in zip(row.parts, one.alignments, strict=True)
            ],
        }
        for row, one, name in zip(rows, found, pool.section_names, strict=True)
    ]
    partners = [
        {
            "name": p.name,
            "kind": "expression",
            "names": list(p.genes),
            "origin": dict(p.origin),
        }
        if isinstance(p, Spots)
        else {
            "name": p.name,
            "kind": p.kind,
            "names": list(p.channels),
            "tile_px": p.tile_px,
        }
        for p in pool.partners
    ]
    sampling = pool.sampling
    return {
        "pairs": len(pool),
        "tile_px": sampling.tile_px,
        "mpp": sampling.mpp,
        "tile_um": sampling.tile_um,
        "partners": partners,
        "sections": sections,
    }


def _stains_text(stains: dict[str, Any]) -> str:
    """Return stain vectors as they can be given."""
    from napari_histodistill.distill.layers.marker import say_vector

    return (
        f"  {stains['partner']}: haematoxylin {say_vector(stains['haematoxylin'])}, "
        f"marker {say_vector(stains['marker'])} ({stains['origin']})"
    )


def _text(facts: dict[str, Any]) -> str:
    lines = []
    for section in facts["sections"]:
        lines += [alignment_text(one) for one in section["alignments"]]
        lines += [_stains_text(one) for one in section["stains"]]
        lines.append(
            f"  {section['pairs']:,} pairs, confidence {section['confidence']:.0%} "
            "(median)"
        )
    named = ", ".join(f"{p['name']} ({p['kind']})" for p in facts["partners"])
    lines.append(
        f"{facts['pairs']:,} pairs of {facts['tile_um']:.0f} µm in {facts['output']}; "
        f"partner: {named}"
    )
    if facts["recipe"]:
        lines.append(f"Train by: histodistill distill {facts['recipe']} -o RUN_FOLDER")
    return "\n".join(lines)

"""``similar``: places on a slide where the tissue looks like this."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_histodistill.cli.console import answering
from napari_histodistill.cli.options import JsonOption, OutOption, parse_point
from napari_histodistill.cli.outputs import (
    claimed_folder,
    refuse_occupied,
    unfinished,
    write_whole,
)

if TYPE_CHECKING:
    from napari_histodistill.maps.alike.ranking import RankedRegion

ThresholdOption = Annotated[
    float | None,
    typer.Option(
        "--threshold",
        min=-1,
        max=1,
        help="Least similarity of a region; by default suggested by the map.",
    ),
]
LimitOption = Annotated[
    int, typer.Option("--limit", min=1, help="List at most this many regions.")
]


def similar(
    store: Annotated[
        Path, typer.Argument(metavar="STORE", help="A store made by `embed`.")
    ],
    at: Annotated[
        list[str],
        typer.Option(
            "--at", metavar="Y,X", help="Like this, in level-0 pixels; may be repeated."
        ),
    ],
    out: OutOption,
    not_at: Annotated[
        list[str] | None,
        typer.Option("--not-at", metavar="Y,X", help="Not like this; may be repeated."),
    ] = None,
    threshold: ThresholdOption = None,
    limit: LimitOption = 20,
    json: JsonOption = False,
) -> None:
    """Map the similarity to a place and rank the most similar regions."""
    from napari_histodistill.cli.alike.heatmap import write_heatmap
    from napari_histodistill.export import (
        write_regions,
        write_regions_geojson,
        write_similarity,
    )
    from napari_histodistill.export.record import record_facts
    from napari_histodistill.maps import (
        EmbeddingStore,
        rank_regions,
        similarity_map,
        suggest_threshold,
    )
    from napari_histodistill.maps.provenance import MapRecord

    began = time.perf_counter()
    like = [parse_point(text, "--at") for text in at]
    unlike = [parse_point(text, "--not-at") for text in not_at or []]
    with answering(as_json=json) as answer, ExitStack() as claimed:
        refuse_occupied(out, "similarity.zarr", "regions.csv", "regions.geojson")
        with EmbeddingStore.open(store) as opened:
            made_by = opened.provenance
            heat = similarity_map(opened, at=like, not_at=unlike)
            pending = unfinished(opened)
        level = suggest_threshold(heat) if threshold is None else threshold
        regions = rank_regions(heat, threshold=level, limit=limit)
        claimed.enter_context(claimed_folder(out))
        outputs = {
            "ome_zarr": out / "similarity.zarr",
            "csv": out / "regions.csv",
            "geojson": out / "regions.geojson",
            "png": out / "similarity.png",
        }
        about = record_facts(MapRecord(made_by=made_by), heat.grid) | {
            "like_at": [list(place) for place in like],
            "not_like_at": [list(place) for place in unlike],
            "threshold": level,
        }
        write_similarity(heat, outputs["ome_zarr"], provenance=about)
        write_regions(
            regions,
            outputs["csv"],
            provenance=about,
            slide_mpp=heat.grid.slide_mpp,
            origin_um=heat.origin_um,
        )
        write_regions_geojson(
            regions,
            outputs["geojson"],
            bounds_origin=made_by.bounds_origin,
            origin_um=heat.origin_um,
            provenance=about,
        )
        write_whole(outputs["png"], lambda path: write_heatmap(heat, path))
        result = {
            "store": str(store),
            "slide": made_by.slide_name,
            "student": made_by.student_name,
            "student_digest": made_by.student_digest,
            "mode": made_by.mode,
            "at": like,
            "not_at": unlike,
            "threshold": level,
            "regions": [region_facts(region) for region in regions],
            "outputs": {name: str(path) for name, path in outputs.items()},
            **pending,
            "seconds": round(time.perf_counter() - began, 2),
        }
        answer.give(result, _text(result))


def region_facts(found: RankedRegion) -> dict[str, Any]:
    """Return a ranked region as JSON; positions in level-0 pixels."""
    box = found.region
    return {
        "rank": found.rank,
        "score": round(found.score, 6),
        "y": round(found.y, 2),
        "x": round(found.x, 2),
        "region": {
            "y": round(box.y, 2),
            "x": round(box.x, 2),
            "height": round(box.height, 2),
            "width": round(box.width, 2),
        },
        "cells": found.cells,
        "area_mm2": found.area_mm2,
        "is_query": found.is_query,
    }


def _text(result: dict[str, Any]) -> str:
    lines = [f"{len(result['regions'])} regions at or above {result['threshold']:.2f}"]
    lines += [
        f"{r['rank']:3}  {r['score']:.2f}  at {r['y']:.0f},{r['x']:.0f}  "
        f"{r['area_mm2']:.3f} mm²" + ("  (clicked)" if r["is_query"] else "")
        for r in result["regions"]
    ]
    lines += list(result["outputs"].values())
    return "\n".join(lines)

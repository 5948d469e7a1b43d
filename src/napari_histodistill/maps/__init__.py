"""Embeddings on a grid, and maps made of them: classes, similarity, difference."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_histodistill.maps.alike.across_slides import (
        PlaceOf,
        SlidesQuery,
        SlidesSearched,
        search_slides,
    )
    from napari_histodistill.maps.alike.ranking import (
        RankedRegion,
        nearest_places,
        rank_regions,
        suggest_threshold,
    )
    from napari_histodistill.maps.alike.similarity import (
        SimilarityIndex,
        SimilarityMap,
        similarity_map,
    )
    from napari_histodistill.maps.classes import (
        ClassArea,
        ClassMap,
        class_map,
        classify_embeddings,
    )
    from napari_histodistill.maps.difference import (
        DifferenceMap,
        difference_map,
        side_of,
    )
    from napari_histodistill.maps.embedding_plan import plan_grid
    from napari_histodistill.maps.engine import EmbedOptions, EmbedReport, embed_slide
    from napari_histodistill.maps.provenance import Provenance
    from napari_histodistill.maps.store import EmbeddingStore, remove_store

__all__ = [
    "ClassArea",
    "ClassMap",
    "DifferenceMap",
    "EmbedOptions",
    "EmbedReport",
    "EmbeddingStore",
    "PlaceOf",
    "Provenance",
    "RankedRegion",
    "SimilarityIndex",
    "SimilarityMap",
    "SlidesQuery",
    "SlidesSearched",
    "class_map",
    "classify_embeddings",
    "difference_map",
    "embed_slide",
    "nearest_places",
    "plan_grid",
    "rank_regions",
    "remove_store",
    "search_slides",
    "side_of",
    "similarity_map",
    "suggest_threshold",
]

_HOMES = {
    "ClassArea": "napari_histodistill.maps.classes",
    "ClassMap": "napari_histodistill.maps.classes",
    "DifferenceMap": "napari_histodistill.maps.difference",
    "EmbedOptions": "napari_histodistill.maps.engine",
    "EmbedReport": "napari_histodistill.maps.engine",
    "EmbeddingStore": "napari_histodistill.maps.store",
    "PlaceOf": "napari_histodistill.maps.alike.across_slides",
    "Provenance": "napari_histodistill.maps.provenance",
    "RankedRegion": "napari_histodistill.maps.alike.ranking",
    "SimilarityIndex": "napari_histodistill.maps.alike.similarity",
    "SimilarityMap": "napari_histodistill.maps.alike.similarity",
    "SlidesQuery": "napari_histodistill.maps.alike.across_slides",
    "SlidesSearched": "napari_histodistill.maps.alike.across_slides",
    "class_map": "napari_histodistill.maps.classes",
    "classify_embeddings": "napari_histodistill.maps.classes",
    "difference_map": "napari_histodistill.maps.difference",
    "embed_slide": "napari_histodistill.maps.engine",
    "nearest_places": "napari_histodistill.maps.alike.ranking",
    "plan_grid": "napari_histodistill.maps.embedding_plan",
    "rank_regions": "napari_histodistill.maps.alike.ranking",
    "remove_store": "napari_histodistill.maps.store",
    "search_slides": "napari_histodistill.maps.alike.across_slides",
    "side_of": "napari_histodistill.maps.difference",
    "similarity_map": "napari_histodistill.maps.alike.similarity",
    "suggest_threshold": "napari_histodistill.maps.alike.ranking",
}


def __getattr__(name: str) -> object:
    """Import on first use: panels name a cell's status before anything is computed."""
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)

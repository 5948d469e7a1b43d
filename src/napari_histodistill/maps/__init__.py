"""Embeddings on a grid, and maps made of them: classes, similarity, difference."""

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
from napari_histodistill.maps.ranking import (
    RankedRegion,
    nearest_places,
    rank_regions,
    suggest_threshold,
)
from napari_histodistill.maps.similarity import (
    SimilarityIndex,
    SimilarityMap,
    similarity_map,
)
from napari_histodistill.maps.store import EmbeddingStore, remove_store

__all__ = [
    "ClassArea",
    "ClassMap",
    "DifferenceMap",
    "EmbedOptions",
    "EmbedReport",
    "EmbeddingStore",
    "Provenance",
    "RankedRegion",
    "SimilarityIndex",
    "SimilarityMap",
    "class_map",
    "classify_embeddings",
    "difference_map",
    "embed_slide",
    "nearest_places",
    "plan_grid",
    "rank_regions",
    "remove_store",
    "side_of",
    "similarity_map",
    "suggest_threshold",
]

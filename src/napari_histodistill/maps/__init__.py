"""Embeddings on a grid, and what a person looks at: similarity and class maps."""

from napari_histodistill.maps.classes import ClassMap, class_map
from napari_histodistill.maps.engine import EmbedReport, embed_slide
from napari_histodistill.maps.similarity import (
    SimilarityMap,
    rank_regions,
    similarity_map,
)
from napari_histodistill.maps.store import EmbeddingStore

__all__ = [
    "ClassMap",
    "EmbedReport",
    "EmbeddingStore",
    "SimilarityMap",
    "class_map",
    "embed_slide",
    "rank_regions",
    "similarity_map",
]

"""More from routine H&E: run and teach distilled students inside napari.

A map of the package (``ARCHITECTURE.md`` beside this file has the two flows):

================  ==============================================================
``slides``        a file becomes a lazily tiled pyramid, a tissue mask, a grid
``students``      the encoder a person runs: spec, bundle, device, torch backend
``maps``          embeddings on a grid, similarity and class maps, the store
``distill``       tile folders and evaluation (training comes here)
``export``        GeoJSON, OME-Zarr, CSV, the WSInfer layout
``layers``        core values to napari layer tuples, without Qt
``controllers``   what the buttons mean, without Qt and without napari
``widgets``       Qt: build, connect, lay out
``cli``           ``histodistill …``
================  ==============================================================

Importing this package loads neither torch nor napari nor Qt.
"""

__version__ = "0.1.0.dev0"

"""Core values to napari layer tuples, without Qt and without importing napari."""

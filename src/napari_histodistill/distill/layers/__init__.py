"""Layers become partners: registration, likeness, refinement, spots."""

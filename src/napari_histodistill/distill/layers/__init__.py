"""Layers as partners: registration by landmarks, its refinement, tables of spots."""

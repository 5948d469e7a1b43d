"""Layers as partners: registration by landmarks and its refinement."""

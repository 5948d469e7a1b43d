"""Landmarks and transforms of other programs, in and out."""

"""Pairs of sparse and dense tiles: planned, stored, loaded, batched."""

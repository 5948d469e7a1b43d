"""Distillation: recipes, pairs, training, runs, scores and experiments.

From a recipe and pairs of images to a student, and its evaluation on held-out data.
"""

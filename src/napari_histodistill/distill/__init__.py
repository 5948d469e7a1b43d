"""Tile folders and the evaluation of students; distillation comes here."""

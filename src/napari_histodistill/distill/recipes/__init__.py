"""Recipes: the schema, files, presets, and the form that shows all settings."""

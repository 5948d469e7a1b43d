"""Experiments: every variant trained on every fold with every seed, and compared."""

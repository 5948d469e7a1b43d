"""A table of runs: every variant on every fold with every seed, compared."""

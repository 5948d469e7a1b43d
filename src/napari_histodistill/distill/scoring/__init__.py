"""Judging a student on what it never saw: scores, baselines, probes, figures."""

"""Evaluation on data a student never saw: scores, baselines, probes, figures."""

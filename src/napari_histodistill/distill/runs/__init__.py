"""Runs, each a folder and a process: loop, events, checkpoints, previews, report."""

"""A run is a folder and a process: the loop, events, checkpoints, previews, report."""

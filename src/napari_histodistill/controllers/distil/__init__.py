"""The session behind *Distil a student*: alignment, pairs, runs, classes."""

"""Sections from files: opened, aligned, paired and shown, without a window."""

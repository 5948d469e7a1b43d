"""``align`` and ``pairs``: sections from files, without a window."""

"""From compressed bytes to pixels, with sizes bounded before any decoder runs."""

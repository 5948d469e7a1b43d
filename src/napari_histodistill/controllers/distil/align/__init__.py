"""Step 2 of *Distil a student*, without a window: finding, fits, files, looks."""

"""A slide as a pyramid of levels: its pixels, its grid, how it is resampled."""

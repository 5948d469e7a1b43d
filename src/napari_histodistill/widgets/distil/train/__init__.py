"""Step 4 of *Distil a student*: settings, the run, its preview, what came of it."""

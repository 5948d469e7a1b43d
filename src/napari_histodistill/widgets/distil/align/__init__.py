"""Step 2 of *Distil a student*: landmarks, their fit, finding, refining, looks."""

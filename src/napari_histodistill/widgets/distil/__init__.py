"""The panel *Distil a student*."""

"""The panel *Explore slide*."""

"""Teach in *Explore slide*: strokes, annotations and answers become classes."""

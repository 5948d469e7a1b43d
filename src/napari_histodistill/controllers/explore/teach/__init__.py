"""Teach: strokes, what is learned from them, and which squares to ask about."""

"""Encoders on torch (others may join)."""

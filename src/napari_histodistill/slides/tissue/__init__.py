"""Tissue masks, stain normalisation, colour profiles, and writing of pyramids."""

"""TIFF files: pages, layout, metadata, and what a file may claim."""

"""TIFF files: pages, layout, metadata, and the limits on their claims."""

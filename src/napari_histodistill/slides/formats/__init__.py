"""Formats other than TIFF: OME-Zarr, DICOM, CZI, OpenSlide, plain images, arrays."""

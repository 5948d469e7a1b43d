"""Every other format that opens as a slide: OME-Zarr, DICOM, CZI, OpenSlide, arrays."""

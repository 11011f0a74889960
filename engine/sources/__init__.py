"""Open an image: TIFF, Zarr or an array."""

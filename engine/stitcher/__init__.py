"""Write the mask: Zarr arrays, records, pyramid, metadata."""

"""Tile geometry, planning, mirror and windows: integers and NumPy, no I/O."""

"""Segment images of any size with the mask of one whole pass."""

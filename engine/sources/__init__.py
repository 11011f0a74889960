"""Images as rectangles of pixels, whatever holds them."""

from .base import ImageFacts, Level, SegmentedSource, Source
from .open import open_source

__all__ = ["ImageFacts", "Level", "SegmentedSource", "Source", "open_source"]

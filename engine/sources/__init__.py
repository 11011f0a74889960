"""Images as rectangles of pixels, whatever holds them."""

from .base import ImageFacts, Level, Source
from .open import open_source

__all__ = ["ImageFacts", "Level", "Source", "open_source"]

"""How far a training is."""

from typing import NamedTuple

from .history import Row


class Progress(NamedTuple):
    """Told after each step."""

    step: int
    """Steps done."""
    steps: int
    """Steps in all."""
    loss: float
    """Loss of the last step."""
    rows: tuple[Row, ...]
    """Figures so far."""

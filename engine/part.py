"""A part of a run: the blocks that one of several processes computes, such as a job of an array."""

import re
from array import array
from dataclasses import dataclass

from ..tiler.errors import SettingError
from .plan import Plan

_STRETCHES = 4
"""Of each part at least, where there are blocks enough: parts of an image are not equally heavy."""


@dataclass(frozen=True, slots=True)
class Part:
    """Every ``count``-th stretch of blocks, from stretch ``number`` on."""

    number: int
    """Which part, counted from 0."""
    count: int
    """Parts in all."""

    def __post_init__(self) -> None:
        if not 0 <= self.number < self.count:
            raise SettingError(
                f"part={self} is not possible; use i/n with i from 0 to n - 1, such as 0/4"
            )

    @classmethod
    def of(cls, text: str) -> "Part":
        """Return the part that ``i/n`` names.

        Raises:
            SettingError: It names none.

        >>> Part.of("3/4")
        Part(number=3, count=4)
        """
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", str(text).strip())
        if not found:
            raise SettingError(
                f"part={text} is no part; use i/n with i from 0 to n - 1, such as 0/4"
            )
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def blocks(self, plan: Plan) -> "array[int]":
        """Return the part's blocks in the order in which they are computed.

        A stretch is at most a row of a strip, whose blocks share what is decoded of the image.
        """
        order = plan.strips.order(plan.grid, range(plan.grid.blocks))
        stretch = max(1, min(plan.strips.columns, len(order) // (_STRETCHES * self.count)))
        mine = (
            block
            for place, block in enumerate(order)
            if place // stretch % self.count == self.number
        )
        return array("q", mine)

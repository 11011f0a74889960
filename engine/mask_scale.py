"""How large a mask's pixels are, told by the shapes of mask and image."""

from .plan import Plan

Size = tuple[float, float]


def level0_pixels(plan: Plan) -> Size:
    """Return height and width of a pixel of the mask in pixels of the image's level 0."""
    level0_y, level0_x = _ratio(plan.image.levels[0].shape, plan.image.levels[plan.level].shape)
    own_y, own_x = _ratio(plan.image.levels[plan.level].shape, plan.shape)
    return level0_y * own_y, level0_x * own_x


def mask_pixel_size(plan: Plan) -> Size | None:
    """Return height and width of a pixel of the mask in the image's unit, if it has one."""
    level = plan.image.levels[plan.level]
    if level.pixel_size is None:
        return None
    own_y, own_x = _ratio(level.shape, plan.shape)
    return level.pixel_size[0] * own_y, level.pixel_size[1] * own_x


def downsampling(long: int, short: int) -> float:
    """Return how many pixels of ``long`` one of ``short`` covers; ``int`` where it is whole.

    Levels, and outputs of another scale, round their own size.

    >>> downsampling(2967, 741), downsampling(2967, 742), downsampling(371, 741)
    (4, 4, 0.5)
    """
    whole = round(long / short)
    if whole and abs(long - whole * short) < whole:
        return whole
    parts = round(short / long)
    if parts and abs(short - parts * long) < parts:
        return 1 / parts
    return long / short


def _ratio(long: tuple[int, int], short: tuple[int, int]) -> Size:
    return downsampling(long[0], short[0]), downsampling(long[1], short[1])

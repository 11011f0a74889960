"""How many pixels of a large picture a small one of the same scene has for one."""


def downsampling(long: int, short: int) -> float:
    """Return how many pixels of ``long`` one of ``short`` covers; ``int`` where it is whole.

    Levels of a pyramid, and outputs of another scale, round their own size.

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

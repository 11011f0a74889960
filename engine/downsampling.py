"""How many pixels of a large picture a small one of the same scene has for one."""


def downsampling(long: int, short: int) -> float:
    """Return how many pixels of ``long`` one of ``short`` covers; levels round their own size.

    >>> downsampling(2967, 741), downsampling(2967, 742), downsampling(300, 200)
    (4, 4, 1.5)
    """
    whole = round(long / short)
    return whole if whole and abs(long - whole * short) < whole else long / short

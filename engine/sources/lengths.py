"""Units of length in the words and signs that image files use."""

_MICROMETERS = {
    "angstrom": 1e-4,
    "å": 1e-4,
    "picometer": 1e-6,
    "pm": 1e-6,
    "nanometer": 1e-3,
    "nm": 1e-3,
    "micrometer": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "um": 1.0,
    "\u00b5m": 1.0,  # micro sign
    "\u03bcm": 1.0,  # Greek mu
    "millimeter": 1e3,
    "mm": 1e3,
    "centimeter": 1e4,
    "cm": 1e4,
    "inch": 25_400.0,
    "in": 25_400.0,
    "meter": 1e6,
    "m": 1e6,
    "kilometer": 1e9,
    "km": 1e9,
}


def micrometers_per(unit: str) -> float | None:
    """Return the micrometers in one ``unit``, ``None`` where it is no known length.

    >>> micrometers_per("nanometer")
    0.001
    """
    return _MICROMETERS.get(unit.strip().lower().replace("metre", "meter"))


def length_text(micrometers: float) -> str:
    """Return a length for people, in a unit of its size.

    >>> length_text(0.499), length_text(300_000.0), length_text(1e7)
    ('0.499 um', '30 cm', '10 m')
    """
    for unit in ("m", "cm", "mm"):
        if micrometers >= _MICROMETERS[unit]:
            return f"{micrometers / _MICROMETERS[unit]:.4g} {unit}"
    return f"{micrometers:.4g} um"


def pixel_text(size: tuple[float, float]) -> str:
    """Return the height and width of a pixel in micrometers for people.

    >>> pixel_text((0.5, 0.5)), pixel_text((300_000, 500_000))
    ('0.5 um', '30 cm x 50 cm (height x width)')
    """
    height, width = (length_text(side) for side in size)
    return height if height == width else f"{height} x {width} (height x width)"

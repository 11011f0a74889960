"""The libraries that training adds, asked for in one place."""

from ...tiler.errors import MissingExtraError

_PACKAGES = {"PIL": "Pillow", "scipy": "SciPy", "torch": "Torch"}


def require_extras() -> None:
    """Check that Torch, SciPy and Pillow are installed.

    Raises:
        MissingExtraError: One is not.
    """
    try:
        import PIL  # noqa: F401
        import scipy  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            f"training needs Torch, SciPy and Pillow, of which {_PACKAGES[error.name or 'torch']} "
            "is missing: pip install torch scipy pillow (for a CPU, a CPU build of Torch first)"
        ) from error

"""Labels from probabilities that were averaged: over blended tiles, or over turned ones."""

import numpy as np
from numpy.typing import NDArray

from .backends.base import Recipe


def decide(probabilities: NDArray[np.floating], recipe: Recipe) -> NDArray[np.generic]:
    """Return the labels ``(batch, y, x)`` of probabilities ``(batch, class, y, x)``.

    ``Recipe.not_computed`` where one of them is NaN or infinite.
    """
    if recipe.classes == 1:
        labels = (probabilities[:, 0] > recipe.threshold).astype(recipe.label_dtype)
    else:
        labels = probabilities.argmax(axis=1).astype(recipe.label_dtype)
    labels[~np.isfinite(probabilities.sum(axis=1))] = recipe.not_computed
    return labels

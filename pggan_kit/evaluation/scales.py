"""The scales on which values are compared: as they are (`plain`), or by their logarithms (`log`)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def convert_to_scale(value: float, scale: str) -> float:
    """Return a value on the scale on which it is compared; -infinity where it has no logarithm, as 0 has none."""
    if scale == "plain":
        return value
    return math.log(value) if value > 0 else -math.inf


def compute_mean(values: Sequence[float], scale: str) -> float:
    """Return the mean of one value or more, the geometric one on a logarithmic scale.

    Returns:
        The mean; NaN where a value is not finite, and 0 where one has no logarithm, as the geometric mean has it.
    """
    if not all(math.isfinite(value) for value in values):
        return math.nan
    # One value is itself, to its last digit.
    if len(values) == 1:
        return float(values[0])
    if scale == "plain":
        return float(np.mean(values))
    return math.exp(np.mean([convert_to_scale(value, scale) for value in values]))

"""What all penalties have."""

from __future__ import annotations

from collections.abc import Mapping

from pggan_kit import PerStage


class Weighted:
    """A penalty's weight and how often it is added.

    Args:
        weight: factor of the term, at least 0; may be per stage.
        every: add it at every k-th update of D, k times as strong (lazy regularisation, Karras et al. 2020).

    Raises:
        ValueError: a value out of range.
    """

    def __init__(self, weight: PerStage[float], every: int) -> None:
        for value in weight.values() if isinstance(weight, Mapping) else (weight,):
            if not value >= 0:
                raise ValueError(f"weight must not be negative, and is {value}")
        if every < 1:
            raise ValueError(f"every must be at least 1, and is {every}")
        self.weight = weight
        self.every = every

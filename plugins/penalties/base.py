"""What all penalties have."""

from __future__ import annotations


class Weighted:
    """A penalty's weight and how often it is added.

    Args:
        weight: factor of the term, at least 0.
        every: add it at every k-th update of D, k times as strong (lazy regularisation, Karras et al. 2020).

    Raises:
        ValueError: a value out of range.
    """

    def __init__(self, weight: float, every: int) -> None:
        if not weight >= 0:
            raise ValueError(f"weight must not be negative, and is {weight}")
        if every < 1:
            raise ValueError(f"every must be at least 1, and is {every}")
        self.weight = weight
        self.every = every

"""What all penalties have."""

from __future__ import annotations

from pggan_kit import PerStage, check_at_least


class Weighted:
    """A penalty's weight and how often it is added.

    Args:
        weight: factor of the term, at least 0; may be per stage.
        every: add it at every k-th update of D, k times as strong (lazy regularisation, Karras et al. 2020).

    Raises:
        ValueError: a value out of range.
    """

    def __init__(self, weight: PerStage[float], every: int) -> None:
        check_at_least("weight", weight, 0)
        check_at_least("every", every, 1)
        self.weight = weight
        self.every = every

"""The base class of penalties."""

from __future__ import annotations

from pggan_kit import Varying, check_at_least


class WeightedPenalty:
    """A penalty with a weight and an interval between the updates of D that it is added to.

    Args:
        weight: Factor of the term, at least 0; may be per stage or a curve.
        every: Number k of updates of D: every k-th one adds the term, multiplied by k (lazy regularisation, Karras et
            al. 2020). At least 1.

    Raises:
        ValueError: A value is out of range.
    """

    def __init__(self, weight: Varying[float], every: int) -> None:
        check_at_least("weight", weight, 0)
        check_at_least("every", every, 1, whole=True)
        self.weight = weight
        self.every = every

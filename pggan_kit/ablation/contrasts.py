"""Contrasts: weighted sums of the variants that one seed was trained in, one sum for each seed."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from pggan_kit.ablation import statistics as st


@dataclass(frozen=True)
class Contrast:
    """A question that an ablation asks, as weights of variants.

    Attributes:
        name: Name for people.
        weights: Weight of each variant that it compares; their sum is 0.
        role: `confirmatory`, `control`, `exploratory` or `secondary`.
    """

    name: str
    weights: Mapping[str, float]
    role: str

    @property
    def pair(self) -> tuple[str, str] | None:
        """The variant and the one that it is compared with; None if more variants take part."""
        if sorted(self.weights.values()) != [-1, 1]:
            return None
        variant, against = sorted(self.weights, key=lambda name: -self.weights[name])
        return variant, against

    def sum_side(self, values: Mapping[str, float], sign: int) -> float:
        """Return the weighted sum of the variants whose weight has a sign; its own sign is dropped."""
        return sum(sign * weight * values[name] for name, weight in self.weights.items() if sign * weight > 0)

    def sum_values(self, values: Mapping[str, float]) -> float:
        """Return the weighted sum of values, of which any may be infinite.

        Infinite values decide the sum by their weights. Where these cancel, as in a pair of runs that both failed, the
        sum is 0: of an interaction, the other runs would answer another question, the effect of one factor alone.
        """
        # Finite and infinite values are summed apart: the difference of two infinite ones would be NaN.
        finite = []
        infinite = []
        for name, weight in self.weights.items():
            if math.isfinite(values[name]):
                finite.append(weight * values[name])
            else:
                infinite.append(math.copysign(weight, weight * values[name]))

        # Infinite values decide, unless their weights cancel.
        if not infinite:
            return st.add_up(finite)
        decisive = st.add_up(infinite)
        return math.copysign(math.inf, decisive) if decisive else 0.0


def make_pair(variant: str, against: str, controls: Collection[str]) -> Contrast:
    """Return the contrast of two variants."""
    weights = {variant: 1.0, against: -1.0}
    return Contrast(f"{variant} - {against}", weights, find_role(weights, controls))


def find_role(variants: Collection[str], controls: Collection[str], role: str = "confirmatory") -> str:
    """Return the role of a contrast: `control` if a control takes part, else the one that is given."""
    return "control" if set(variants) & set(controls) else role


def compare_failures(contrast: Contrast, failed: Sequence[Mapping[str, bool]]) -> st.Failures:
    """Return the failures on the two sides of a contrast, and a test of whether the sides fail equally often.

    Args:
        contrast: The contrast. Variants with a weight above 0 are its side `variant`, the others `against`.
        failed: Whether the run of each variant failed, for each seed.

    Returns:
        The failures. `variant_alone` and `against_alone` are the seeds on which this side failed more than the other,
        by the weights. Of a pair the test is McNemar's; otherwise signs of the weighted failures are flipped, which
        is the same test where the weights are those of a pair.
    """
    # Two variants: the exact test of pairs.
    if contrast.pair is not None:
        variant, against = contrast.pair
        return st.compare_failures([(own[variant], own[against]) for own in failed])

    # More than two: each side is a weighted sum.
    above = [name for name, weight in contrast.weights.items() if weight > 0]
    below = [name for name, weight in contrast.weights.items() if weight < 0]
    sums = [contrast.sum_values({name: float(own[name]) for name in own}) for own in failed]
    return st.Failures(
        variant=sum(own[name] for own in failed for name in above),
        against=sum(own[name] for own in failed for name in below),
        variant_alone=sum(value > 0 for value in sums),
        against_alone=sum(value < 0 for value in sums),
        p=st.run_sign_flip_test(sums).p if any(sums) else 1.0,
    )

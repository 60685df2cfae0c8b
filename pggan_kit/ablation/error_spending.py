"""How much of an error each of several looks may spend, and the levels at which they then test.

How much is fixed before the first look (Lan and DeMets 1983). The levels hold for means of normal differences.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy import optimize, stats

from pggan_kit.ablation import statistics as st

SPENDING = ("pocock", "obrien_fleming")
"""Names of the functions that spend the error: about evenly, or little at early looks."""

NODES = 400
"""Points at which the density of a sum of normal differences is kept between two looks."""

FAR = 8.0
"""Standard deviations beyond which a normal density counts as 0."""


@cache
def spend_error(spending: str, level: float, fractions: tuple[float, ...]) -> tuple[float, ...]:
    """Return the one-sided error that may be spent by each look, earlier looks included (Lan and DeMets 1983).

    Args:
        spending: One of `SPENDING`.
        level: One-sided error over all looks.
        fractions: Shares of the planned pairs that the looks have, the last one 1.
    """
    # At the last look all of the error is spent, whatever the function gives.
    spent = []
    for fraction in fractions:
        if fraction == 1:
            share = level
        elif spending == "pocock":
            share = level * math.log(1 + (math.e - 1) * fraction)
        else:
            share = 2 * float(stats.norm.sf(stats.norm.isf(level / 2) / math.sqrt(fraction)))
        spent.append(share)
    return tuple(spent)


def spend_on_hypothesis(spending: str, looks: Sequence[int], left: int, sides: int) -> tuple[float, ...]:
    """Return the error that may be spent by each look on one of the hypotheses that are left: Bonferroni's share.

    Args:
        spending: One of `SPENDING`.
        looks: Number of pairs of each look.
        left: Number of the hypotheses.
        sides: 1 for a one-sided test; 2 for a two-sided one, half of whose error is spent on each side.
    """
    fractions = tuple(pairs / looks[-1] for pairs in looks)
    one_side = spend_error(spending, st.ALPHA / left / sides, fractions)
    return tuple(sides * error for error in one_side)


@cache
def find_levels(pairs: tuple[int, ...], spent: tuple[float, ...], sides: int) -> tuple[float, ...]:
    """Return the level at which each look tests, so that the looks together err as often as is spent.

    Right for means of normal differences with known variance: their sums have independent increments, and the density
    of a sum that no look has stopped is carried from look to look (Armitage, McPherson and Rowe 1969).

    Args:
        pairs: Number of pairs of each look.
        spent: Error spent by each look, see `spend_error`.
        sides: 1 if a look rejects where the sum is large, 2 if also where it is small.
    """
    levels = []
    unit_nodes, unit_weights = np.polynomial.legendre.leggauss(NODES)
    going_on = _Density(np.zeros(1), np.ones(1))
    for look, count in enumerate(pairs):
        step = math.sqrt(count - (pairs[look - 1] if look else 0))
        error = spent[look] - (spent[look - 1] if look else 0.0)
        farthest = FAR * math.sqrt(count)
        bound = going_on.find_bound(step, error, sides, farthest)
        levels.append(sides * float(stats.norm.sf(bound / math.sqrt(count))))

        # What goes on is the density between the bounds, at the nodes of the next integral.
        low = -bound if sides == 2 else -farthest
        half = (bound - low) / 2
        nodes = low + half * (unit_nodes + 1)
        going_on = _Density(nodes, half * unit_weights * going_on.evaluate(nodes, step))
    return tuple(levels)


class _Density(NamedTuple):
    """The density of a sum that no look has stopped.

    Attributes:
        nodes: Values of the sum.
        weights: Density at these values, times the weights of their integral.
    """

    nodes: np.ndarray
    weights: np.ndarray

    def evaluate(self, values: np.ndarray, step: float) -> np.ndarray:
        """Return the density after a normal step with this standard deviation."""
        return np.asarray(stats.norm.pdf((values[:, None] - self.nodes) / step) @ self.weights / step)

    def find_bound(self, step: float, error: float, sides: int, farthest: float) -> float:
        """Return the bound that a step crosses with the probability `error`."""

        def compute_excess(bound: float) -> float:
            crossing = stats.norm.sf((bound - self.nodes) / step)
            if sides == 2:
                crossing = crossing + stats.norm.cdf((-bound - self.nodes) / step)
            return float(self.weights @ crossing - error)

        low = 0.0 if sides == 2 else -2 * farthest
        return float(optimize.brentq(compute_excess, low, 2 * farthest, xtol=1e-12))

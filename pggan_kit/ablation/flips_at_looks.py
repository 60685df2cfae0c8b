"""Sign-flip tests at several looks, which together err no more often than is spent.

All flips of one sample give the joint distribution of its statistics at all looks, so the boundaries hold exactly,
whatever the distribution of the differences, if it is symmetric without an effect (the idea of AdaStop; Mathieu et al.
2024, arXiv:2306.10882).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from pggan_kit.ablation import statistics as st


class FlipLook(NamedTuple):
    """The sign-flip test of one look.

    Attributes:
        p: Share of the sign patterns whose |mean| at this look is at least as large.
        statistic: |mean| of the scores.
        boundary: Smallest |mean| that ends in a rejection at this look; infinite if none does.
        spent: Share of the sign patterns that are rejected by this look, earlier ones included.
        rejects: Whether the statistic reaches the boundary.
    """

    p: float
    statistic: float
    boundary: float
    spent: float
    rejects: bool


def test_by_flips(scores: Sequence[np.ndarray], spent: Sequence[float], total: int) -> FlipLook:
    """Test for a difference at the last of several looks, two-sided.

    At each look the boundary is the smallest value such that the share of the sign patterns that cross it there, or
    crossed an earlier one, stays below what is spent: what coarse early looks cannot spend is left to later ones.
    Given the absolute values, the boundaries do not depend on the signs; so without an effect a test rejects by the
    last look with at most the error that is spent, and stopping earlier for any other reason only lowers it.

    Args:
        scores: Differences, or signed ranks, of the first pairs at each look up to this one. Absolute values at a look
            may not depend on the signs of the differences.
        spent: Error spent by each of these looks.
        total: Number of pairs of the plan's last look.
    """
    bounds: list[float] = []
    for look, own in enumerate(scores):
        signs = _list_sign_patterns(len(own), total)
        crossed = np.zeros(len(signs), bool)
        for earlier, bound in zip(scores[:look], bounds, strict=True):
            crossed |= _compute_shares(signs, earlier) >= bound
        shares = _compute_shares(signs, own)
        bounds.append(_find_bound(shares[~crossed], math.ceil(spent[look] * len(signs) - crossed.sum()) - 1))

    # The first pattern flips nothing: it is the sample.
    whole = float(np.abs(scores[-1]).mean())
    return FlipLook(
        p=float((shares >= shares[0]).mean()),
        statistic=float(shares[0]) * whole,
        boundary=bounds[-1] * whole if math.isfinite(bounds[-1]) else math.inf,
        spent=float((crossed | (shares >= bounds[-1])).mean()),
        rejects=bool(shares[0] >= bounds[-1]),
    )


@lru_cache(maxsize=4)
def _list_sign_patterns(pairs: int, total: int) -> np.ndarray:
    """Return sign patterns of the first pairs, the one that flips nothing first.

    All patterns with a positive first sign up to `EXACT_UP_TO` pairs: their opposites have the same |mean|. Else
    `DRAWN` patterns of all planned pairs, the same ones for each look, of which the first signs are used.
    """
    if pairs <= st.EXACT_UP_TO:
        numbers = np.arange(2 ** (pairs - 1))[:, None]
        return np.asarray(1.0 - 2.0 * ((numbers >> np.arange(pairs)[::-1]) & 1))
    drawn = np.random.default_rng(0).choice((-1.0, 1.0), size=(st.DRAWN, total))
    return np.vstack([np.ones(total), drawn])[:, :pairs]


def _compute_shares(signs: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return |sum| over the largest possible one for each pattern, rounded, so that rounding makes no difference."""
    whole = float(np.abs(scores).sum()) or 1.0
    shares: np.ndarray = np.round(np.abs(signs[:, : len(scores)] @ scores) / whole, 12)
    return shares


def _find_bound(shares: np.ndarray, most: int) -> float:
    """Return the smallest of the shares that at most `most` of them reach; infinite if there is none."""
    if most <= 0:
        return math.inf
    descending = np.sort(shares)[::-1]
    if most >= len(descending):
        return float(descending[-1]) if len(descending) else math.inf
    allowed = descending[:most][descending[:most] > descending[most]]
    return float(allowed[-1]) if len(allowed) else math.inf

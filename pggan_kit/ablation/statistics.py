"""Statistics of paired differences. Pure functions of numbers; scipy does the distributions.

A pair is one seed trained in two variants. `d` are the differences of the pairs, here always of logarithms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import optimize, stats

ALPHA = 0.05
POWER = 0.8
EXACT_UP_TO = 16
"""Pairs: with more than 2^16 sign patterns, so many are drawn instead."""

DRAWN = 100_000
BOOTSTRAP_FROM = 8
"""Pairs: below, resampling them says too little of the spread."""


class Interval(NamedTuple):
    """From `low` to `high`."""

    low: float
    high: float


class SignFlip(NamedTuple):
    """A p-value, and over how many sign patterns; `exact` if these are all."""

    p: float
    patterns: int
    exact: bool


def t_interval(d: Sequence[float], level: float = 1 - ALPHA) -> Interval:
    """Student's interval of the mean of at least two differences."""
    values = np.asarray(d, float)
    half = stats.t.ppf((1 + level) / 2, len(values) - 1) * _standard_error(values)
    return Interval(float(values.mean() - half), float(values.mean() + half))


def _standard_error(values: np.ndarray) -> float:
    if np.ptp(values) == 0:  # which the formula would round to something above
        return 0.0
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def sign_flip(d: Sequence[float], seed: int = 0) -> SignFlip:
    """Two-sided test of no difference: how often flipped signs of the differences give so large a |mean|.

    All 2^n patterns up to `EXACT_UP_TO` pairs; else `DRAWN` of them and the observed one, so p is never 0.
    """
    values = np.asarray(d, float)
    n = len(values)
    exact = n <= EXACT_UP_TO
    if exact:
        signs = 1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    else:
        signs = np.random.default_rng(seed).choice((-1.0, 1.0), size=(DRAWN, n))
    observed = abs(values.sum())
    # A pattern that is equal but for rounding counts as equal.
    as_large = int((np.abs(signs @ values) >= observed * (1 - 1e-9) - 1e-300).sum())
    if exact:
        return SignFlip(as_large / 2**n, 2**n, True)
    return SignFlip((as_large + 1) / (DRAWN + 1), DRAWN, False)


def signed_ranks(d: Sequence[float]) -> list[float]:
    """The ranks of the |differences|, ties shared, with their signs (Wilcoxon); a dead run gives an infinite one."""
    values = np.asarray(d, float)
    ranks: list[float] = (np.sign(values) * stats.rankdata(np.abs(values))).tolist()
    return ranks


def correlation(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Pearson's, between the members of pairs. None below three pairs, or where one side does not vary."""
    if len(one) < 3 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    return float(stats.pearsonr(one, other).statistic)


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Holm's adjusted p-values (1979): the chance of any false alarm among all of them stays below the level."""
    adjusted, largest = {}, 0.0
    for rank, name in enumerate(sorted(p, key=lambda name: p[name])):
        largest = max(largest, min(1.0, (len(p) - rank) * p[name]))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p}


def equivalence(d: Sequence[float], margin: float) -> float:
    """The p-value of two one-sided t-tests (TOST; Schuirmann 1987): small where the mean lies within +-margin."""
    values = np.asarray(d, float)
    if _standard_error(values) == 0:
        return 0.0 if abs(values.mean()) < margin else 1.0
    above = stats.ttest_1samp(values, -margin, alternative="greater").pvalue
    below = stats.ttest_1samp(values, margin, alternative="less").pvalue
    return float(max(above, below))


def smallest_effect(d: Sequence[float], alpha: float = ALPHA, power: float = POWER) -> float:
    """The mean difference that a two-sided t-test of so many pairs with this spread finds with a chance of `power`."""
    values = np.asarray(d, float)
    freedom, error = len(values) - 1, _standard_error(values)
    if error == 0:
        return 0.0
    critical = stats.f.ppf(1 - alpha, 1, freedom)

    def lacking(shift: float) -> float:
        """The square of t is noncentral F, whose tail is computed well for few pairs too."""
        return float(stats.ncf.sf(critical, 1, freedom, shift**2) - power)

    highest = float(np.sqrt(critical)) + 4.0
    while lacking(highest) < 0:
        highest *= 2
    return float(optimize.brentq(lacking, 0.0, highest) * error)


def bootstrap_interval(d: Sequence[float], level: float = 1 - ALPHA, seed: int = 0) -> Interval | None:
    """BCa bootstrap interval of the mean (10,000 resamples); None below `BOOTSTRAP_FROM` pairs or without spread."""
    values = np.asarray(d, float)
    if len(values) < BOOTSTRAP_FROM or np.ptp(values) == 0:
        return None
    found = stats.bootstrap(
        (values,), np.mean, n_resamples=10_000, confidence_level=level, method="BCa", rng=np.random.default_rng(seed)
    ).confidence_interval
    return Interval(float(found.low), float(found.high))


@dataclass(frozen=True)
class Failures:
    """Of pairs: how many members died, and McNemar's exact test that both variants die equally often."""

    variant: int
    against: int
    variant_alone: int
    against_alone: int
    p: float


def failures(pairs: Sequence[tuple[bool, bool]]) -> Failures:
    """From whether each member of each pair died."""
    alone = sum(one and not other for one, other in pairs)
    other_alone = sum(other and not one for one, other in pairs)
    p = float(stats.binomtest(alone, alone + other_alone, 0.5).pvalue) if alone + other_alone else 1.0
    return Failures(sum(one for one, _ in pairs), sum(other for _, other in pairs), alone, other_alone, p)

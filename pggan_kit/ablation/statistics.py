"""Statistics of paired differences. Pure functions of numbers; scipy does the distributions.

A pair is one seed trained in two variants. `d` are the differences of the pairs, on the scale of the metric.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy import optimize, stats

ALPHA = 0.05
POWER = 0.8
EXACT_UP_TO = 16
"""Pairs: with more than 2^16 sign patterns, so many are drawn instead."""

DRAWN = 100_000
SIMULATED = 2_000
"""Samples of pairs of which the power of a test is counted."""

SIMULATED_EXACTLY = 12
"""Pairs: with more, the power is that over 2^12 drawn patterns."""

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
    values = _finite(d)
    half = stats.t.ppf((1 + level) / 2, len(values) - 1) * _standard_error(values)
    return Interval(float(values.mean() - half), float(values.mean() + half))


def _finite(d: Sequence[float]) -> np.ndarray:
    values = np.asarray(d, float)
    if not np.isfinite(values).all():
        raise ValueError(f"differences must be finite numbers, not {list(d)}")
    return values


def _standard_error(values: np.ndarray) -> float:
    if np.ptp(values) == 0:  # which the formula would round to something above
        return 0.0
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def sign_flip(d: Sequence[float], seed: int = 0) -> SignFlip:
    """Test for a difference, two-sided: how often do flipped signs of the differences give as large a |mean|?

    Over all 2^n patterns up to `EXACT_UP_TO` pairs; else over `DRAWN` of them and the observed one, so p is never 0.

    Raises:
        ValueError: a difference is not finite.
    """
    values = _finite(d)
    if len(values) < 2:
        return SignFlip(1.0, 2, True)  # scipy asks for two, and both patterns of one pair are as large
    whole = float(np.abs(values).sum()) or 1.0

    def share(flipped: np.ndarray, axis: int) -> np.ndarray:
        """Rounded, so that patterns whose sums are equal but for rounding count as equal."""
        means: np.ndarray = np.round(np.abs(flipped.sum(axis=axis)) / whole, 12)
        return means

    found = stats.permutation_test(
        (values,),
        share,
        permutation_type="samples",
        alternative="greater",
        n_resamples=DRAWN,
        batch=10_000,
        vectorized=True,
        rng=np.random.default_rng(seed),
    )
    return SignFlip(float(found.pvalue), len(found.null_distribution), len(values) <= EXACT_UP_TO)


def smallest_p(pairs: int) -> float:
    """Return the smallest p-value that `sign_flip` can give: all signs alike, or all the other way round."""
    return 2 / 2**pairs if pairs <= EXACT_UP_TO else 1 / (DRAWN + 1)


def pairs_needed(contrasts: int) -> int:
    """Return how many pairs a contrast needs at the least, so that Holm's correction can leave it below `ALPHA`.

    Args:
        contrasts: the number of those that are corrected together, at least 1.
    """
    pairs = 1
    while contrasts * 2 / 2**pairs >= ALPHA:
        pairs += 1
    return pairs


def signed_ranks(d: Sequence[float]) -> list[float]:
    """The ranks of the |differences|, ties shared, with their signs (Wilcoxon). A difference may be infinite.

    Raises:
        ValueError: one is NaN.
    """
    values = np.asarray(d, float)
    if np.isnan(values).any():
        raise ValueError(f"differences must be numbers, not {list(d)}")
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
    values = _finite(d)
    if _standard_error(values) == 0:
        return 0.0 if abs(values.mean()) < margin else 1.0
    above = stats.ttest_1samp(values, -margin, alternative="greater").pvalue
    below = stats.ttest_1samp(values, margin, alternative="less").pvalue
    return float(max(above, below))


@cache
def detectable(pairs: int, alpha: float = ALPHA, power: float = POWER) -> float | None:
    """Return the mean, in standard deviations, that `sign_flip` finds below `alpha` with a chance of `power`.

    Of normal differences, by simulation with a seed of its own: within about 1 %.

    Returns:
        None where so few pairs never get below `alpha`.
    """
    if smallest_p(pairs) >= alpha:
        return None
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(pairs, SIMULATED))
    if pairs <= SIMULATED_EXACTLY:
        # A pattern and its opposite give the same |mean|: half of them are enough.
        signs = 1.0 - 2.0 * ((np.arange(2 ** (pairs - 1))[:, None] >> np.arange(pairs)) & 1)
        others = 0
    else:
        wanted = max(2**SIMULATED_EXACTLY, math.ceil(10 / alpha))
        signs = rng.choice((-1.0, 1.0), size=(wanted, pairs))
        others = 1  # the observed one
    of_noise = signs @ noise
    of_mean = signs.sum(1)[:, None]

    def excess(mean: float) -> float:
        """Return the power at a mean, less the wanted one."""
        observed = np.abs(noise.sum(0) + mean * pairs)
        as_large = (np.abs(of_noise + mean * of_mean) >= observed * (1 - 1e-9)).sum(0)
        p = (as_large + others) / (len(signs) + others)
        return float((p < alpha).mean() - power)

    highest = 1.0
    while excess(highest) < 0:
        highest *= 2
    return float(optimize.bisect(excess, 0.0, highest, xtol=1e-3))


def smallest_effect(d: Sequence[float], alpha: float = ALPHA, power: float = POWER) -> float | None:
    """Return the mean difference that `sign_flip` of so many pairs with this spread finds with a chance of `power`.

    None where so few pairs never get below `alpha`.
    """
    values = _finite(d)
    deviations = detectable(len(values), alpha, power)
    if deviations is None or np.ptp(values) == 0:
        return None if deviations is None else 0.0
    return deviations * float(values.std(ddof=1))


def bootstrap_interval(d: Sequence[float], level: float = 1 - ALPHA, seed: int = 0) -> Interval | None:
    """BCa bootstrap interval of the mean (10,000 resamples); None below `BOOTSTRAP_FROM` pairs or without spread."""
    values = _finite(d)
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

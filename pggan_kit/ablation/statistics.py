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
from scipy import optimize, special, stats

ALPHA = 0.05
"""Level of all tests."""

POWER = 0.8
"""Probability with which a detectable difference is detected."""

EXACT_UP_TO = 16
"""Maximum pairs of which all sign patterns are used, 2^16 of them; with more pairs, patterns are drawn."""

DRAWN = 100_000
"""Number of drawn sign patterns."""

SIMULATED = 2_000
"""Number of simulated samples from which the power of a test is estimated."""

DRAWN_FOR_POWER = 2**12
"""Minimum number of drawn sign patterns with which the power of a test is estimated."""

LARGEST_MEAN = 64.0
"""Mean of differences, in standard deviations, at which all of them have one sign: the power is as high as it gets."""

PATTERNS_AT_ONCE = 1_000
"""Maximum sign patterns that all simulated samples are compared with at once, which takes 16 MB."""

ROUNDING = 1e-12
"""Largest share of numbers that counts as a rounding error of what is computed from them."""

BOOTSTRAP_FROM = 8
"""Minimum pairs of a bootstrap: resampling fewer of them says too little about the spread."""


class Interval(NamedTuple):
    """An interval from `low` to `high`."""

    low: float
    high: float


class SignFlip(NamedTuple):
    """A p-value, and the number of sign patterns that it comes from; `exact` if these are all."""

    p: float
    patterns: int
    exact: bool


def compute_t_interval(d: Sequence[float], level: float = 1 - ALPHA) -> Interval:
    """Return Student's interval of the mean of at least two differences."""
    values = _convert_finite(d)
    half = stats.t.ppf((1 + level) / 2, len(values) - 1) * _compute_standard_error(values)
    return Interval(float(values.mean() - half), float(values.mean() + half))


def _convert_finite(d: Sequence[float]) -> np.ndarray:
    """Return differences as an array.

    Raises:
        ValueError: A difference is infinite or NaN.
    """
    values = np.asarray(d, float)
    if not np.isfinite(values).all():
        raise ValueError(f"differences must be finite numbers, not {list(d)}")
    return values


def add_up(terms: Sequence[float]) -> float:
    """Return the sum of finite terms; exactly 0 where only a rounding error is left of them.

    Thirds do not add up to exactly 0, and a rounding error of the same sign at every seed would pass for a difference.
    """
    total = sum(terms)
    if abs(total) <= ROUNDING * sum(abs(term) for term in terms):
        return 0.0
    return total


def do_vary(values: Sequence[float] | np.ndarray) -> bool:
    """Return whether at least one of finite values differs from another by more than a rounding error."""
    return bool(np.ptp(values) > ROUNDING * np.abs(values).max())


def compute_spread(d: Sequence[float] | np.ndarray) -> float:
    """Return the standard deviation of at least two differences; 0 where they do not vary, see `do_vary`."""
    if not do_vary(d):
        return 0.0
    return float(np.std(d, ddof=1))


def _compute_standard_error(values: np.ndarray) -> float:
    return compute_spread(values) / math.sqrt(len(values))


def run_sign_flip_test(d: Sequence[float], seed: int = 0) -> SignFlip:
    """Test for a difference, two-sided: how often do flipped signs of the differences give as large a |mean|?

    Uses all 2^n patterns up to `EXACT_UP_TO` pairs; else `DRAWN` of them and the observed one, so p is never 0.

    Raises:
        ValueError: A difference is not finite.
    """
    values = _convert_finite(d)
    if len(values) < 2:
        return SignFlip(1.0, 2, True)  # scipy needs two values, and both patterns of one pair are equally large
    whole = float(np.abs(values).sum()) or 1.0

    def compute_share(flipped: np.ndarray, axis: int) -> np.ndarray:
        """Return |sum| over the largest possible one, rounded: sums that differ by rounding alone count as equal."""
        shares: np.ndarray = np.round(np.abs(flipped.sum(axis=axis)) / whole, 12)
        return shares

    test = stats.permutation_test(
        (values,),
        compute_share,
        permutation_type="samples",
        alternative="greater",
        n_resamples=DRAWN,
        batch=10_000,
        vectorized=True,
        rng=np.random.default_rng(seed),
    )
    return SignFlip(float(test.pvalue), len(test.null_distribution), len(values) <= EXACT_UP_TO)


def compute_smallest_p(pairs: int) -> float:
    """Return the smallest p-value that `run_sign_flip_test` can give: that of differences which are all alike."""
    if pairs <= EXACT_UP_TO:
        smallest: float = 2 / 2**pairs  # the observed pattern and its opposite
        return smallest
    return 1 / (DRAWN + 1)


def count_pairs_needed(contrasts: int) -> int:
    """Return the minimum pairs of a contrast whose p-value Holm's correction can leave below `ALPHA`.

    Args:
        contrasts: Number of contrasts that are corrected together, at least 1.
    """
    pairs = 1
    while contrasts * 2 / 2**pairs >= ALPHA:
        pairs += 1
    return pairs


def rank_with_signs(d: Sequence[float]) -> list[float]:
    """Return the ranks of the |differences|, ties shared, with their signs (Wilcoxon). A difference may be infinite.

    Raises:
        ValueError: A difference is NaN.
    """
    values = np.asarray(d, float)
    if np.isnan(values).any():
        raise ValueError(f"differences must be numbers, not {list(d)}")

    # Differences that are equal but for rounding share their rank.
    sizes = np.abs(values)
    largest = sizes.max(initial=0.0, where=np.isfinite(sizes)) or 1.0
    digits = round(-math.log10(ROUNDING))
    ranks: list[float] = (np.sign(values) * stats.rankdata(np.round(sizes / largest, digits))).tolist()
    return ranks


def correlate_pairs(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Return Pearson's correlation between the members of pairs.

    Returns:
        The correlation; None with fewer than three pairs, or where one side does not vary.
    """
    if len(one) < 3 or not do_vary(one) or not do_vary(other):
        return None
    return float(stats.pearsonr(one, other).statistic)


def adjust_by_holm(p: Mapping[str, float]) -> dict[str, float]:
    """Return Holm's adjusted p-values (1979): they keep the chance of any false alarm among all of them below a level.

    Args:
        p: The p-values of tests by their names.
    """
    ascending = sorted(p, key=lambda name: p[name])
    adjusted = {}
    largest = 0.0
    for rank, name in enumerate(ascending):
        largest = max(largest, min(1.0, (len(p) - rank) * p[name]))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p}


def run_equivalence_test(d: Sequence[float], margin: float) -> float:
    """Return the p-value of two one-sided t-tests (TOST; Schuirmann 1987): small if the mean lies within +-margin."""
    values = _convert_finite(d)
    if not do_vary(values):
        return 0.0 if abs(values.mean()) < margin else 1.0
    # `stats.ttest_1samp` takes fifty times as long for so few values.
    error = _compute_standard_error(values)
    freedom = len(values) - 1
    above = special.stdtr(freedom, -(values.mean() + margin) / error)
    below = special.stdtr(freedom, (values.mean() - margin) / error)
    return float(max(above, below))


@cache
def find_detectable_mean(pairs: int, alpha: float = ALPHA, power: float = POWER) -> float | None:
    """Return the mean, in standard deviations, that `run_sign_flip_test` detects with a probability of `power`.

    Simulates normal differences with a seed of its own; right to about 1 %.

    Args:
        pairs: Number of pairs.
        alpha: Level below which the p-value has to fall.
        power: Probability of that.

    Returns:
        The mean; None if p-values of this number of pairs never fall below `alpha`, or not with the patterns drawn.
    """
    if compute_smallest_p(pairs) >= alpha:
        return None
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(pairs, SIMULATED))
    signs, are_all = _list_sign_patterns(pairs, alpha, rng)
    observed_patterns = 0 if are_all else 1  # the drawn ones do not contain it

    def compute_excess(mean: float) -> float:
        """Return the power at a mean, minus the wanted power."""
        values = noise + mean
        observed = np.abs(values.sum(0)) * (1 - 1e-9)
        as_large = np.zeros(SIMULATED, int)
        for start in range(0, len(signs), PATTERNS_AT_ONCE):
            flipped = signs[start : start + PATTERNS_AT_ONCE].astype(float) @ values
            as_large += (np.abs(flipped) >= observed).sum(0)
        p = (as_large + observed_patterns) / (len(signs) + observed_patterns)
        return float((p < alpha).mean() - power)

    # The power grows with the mean: bracket the wanted one, then bisect.
    highest = 1.0
    while compute_excess(highest) < 0:
        if highest >= LARGEST_MEAN:
            return None
        highest *= 2
    return float(optimize.bisect(compute_excess, 0.0, highest, xtol=1e-3))


def _list_sign_patterns(pairs: int, alpha: float, rng: np.random.Generator) -> tuple[np.ndarray, bool]:
    """Return the sign patterns that simulated samples are compared with, in one byte a sign, and whether they are all.

    Where the test uses all patterns, those that are drawn with replacement may hold the observed one too often for a
    small level: all are taken where they are no more. Small levels draw as many as the test.
    """
    patterns = max(DRAWN_FOR_POWER, math.ceil(10 / alpha))
    if pairs <= EXACT_UP_TO and 2 ** (pairs - 1) <= patterns:
        # A pattern and its opposite give the same |mean|: half of the patterns are enough.
        numbers = np.arange(2 ** (pairs - 1))[:, None]
        return np.asarray(1 - 2 * ((numbers >> np.arange(pairs)) & 1), np.int8), True

    # Drawn in parts, since each draw takes eight bytes for a moment.
    signs = np.empty((min(patterns, DRAWN), pairs), np.int8)
    for start in range(0, len(signs), PATTERNS_AT_ONCE):
        part = signs[start : start + PATTERNS_AT_ONCE]
        part[:] = rng.choice((-1, 1), size=part.shape)
    return signs, False


def find_smallest_effect(d: Sequence[float], alpha: float = ALPHA, power: float = POWER) -> float | None:
    """Return the mean that `run_sign_flip_test` detects in as many pairs with this spread; see `find_detectable_mean`.

    Returns:
        The mean; None if p-values of this number of pairs never fall below `alpha`.
    """
    values = _convert_finite(d)
    deviations = find_detectable_mean(len(values), alpha, power)
    if deviations is None:
        return None
    return deviations * compute_spread(values)


def bootstrap_mean(d: Sequence[float], level: float = 1 - ALPHA, seed: int = 0) -> Interval | None:
    """Return the BCa bootstrap interval of the mean (10,000 resamples).

    Returns:
        The interval; None with fewer than `BOOTSTRAP_FROM` pairs, or where they do not vary.
    """
    values = _convert_finite(d)
    if len(values) < BOOTSTRAP_FROM or not do_vary(values):
        return None
    interval = stats.bootstrap(
        (values,), np.mean, n_resamples=10_000, confidence_level=level, method="BCa", rng=np.random.default_rng(seed)
    ).confidence_interval
    return Interval(float(interval.low), float(interval.high))


@dataclass(frozen=True)
class Failures:
    """Failed runs of two variants over pairs, and McNemar's exact test of whether they fail equally often.

    Attributes:
        variant, against: Number of failed runs of each.
        variant_alone, against_alone: Number of pairs in which only this one failed.
        p: The test's p-value.
    """

    variant: int
    against: int
    variant_alone: int
    against_alone: int
    p: float


def compare_failures(pairs: Sequence[tuple[bool, bool]]) -> Failures:
    """Return the failures of two variants, from whether each member of each pair failed."""
    # Pairs in which one alone failed decide: McNemar's exact test.
    variant_alone = sum(one and not other for one, other in pairs)
    against_alone = sum(other and not one for one, other in pairs)
    differing = variant_alone + against_alone
    p = 1.0
    if differing:
        p = float(stats.binomtest(variant_alone, differing, 0.5).pvalue)
    return Failures(
        variant=sum(one for one, _ in pairs),
        against=sum(other for _, other in pairs),
        variant_alone=variant_alone,
        against_alone=against_alone,
        p=p,
    )

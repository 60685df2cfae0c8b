"""Estimate what a mean and its interval do not show: robust means, how often a variant is better, and what comes next.

Values are on the scale of the metric; a run without a value has an infinite one, the worst. scipy does the
distributions. Interquartile means, probabilities of improvement between unpaired runs, and performance profiles are
those of Agarwal et al. 2021 (arXiv:2108.13264); the posterior with a region of practical equivalence is that of
Benavoli et al. 2017 (arXiv:1606.04316) for independent pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import integrate, stats

from pggan_kit.ablation import statistics as st
from pggan_kit.ablation.contrasts import Contrast

TRIMMED = 0.25
"""Share of the values that an interquartile mean leaves out at each end."""

RESAMPLES = 10_000
"""Number of samples of a bootstrap."""

MOST_THRESHOLDS = 64
"""Maximum thresholds of performance profiles; more values than these are thinned."""

MOST_PAIRS = 1_000_000
"""Maximum pairs that are counted for a next plan."""

LARGEST_SHIFT = 1e6
"""Maximum shift of a non-central t-distribution: with more, any power is 1, and scipy's is NaN (from 1e12 on)."""

SIMULATED_UP_TO = 10
"""Maximum pairs at which the power of sign flips is simulated; with more pairs, it is that of the t-test."""


def estimate_contrast(
    contrast: Contrast, rows: Sequence[Mapping[str, float]], direction: str, margin: float | None, contrasts: int
) -> dict[str, Any]:
    """Return the estimates of a contrast.

    Args:
        contrast: The contrast.
        rows: For each seed the value of each variant, on the scale of the metric; infinite for a run without a value.
        direction: Which values are better, `lower` or `higher`.
        margin: Largest difference that counts as none; None where the metric has no margin of its own.
        contrasts: Number of contrasts that a next plan would correct for.

    Returns:
        `iqm`: `value` and `interval` of the interquartile mean of the differences. `improvement`: the probability that
        the contrast is on the better side of 0, `paired` (the share of seeds), and of two variants also `unpaired` (the
        share of all pairs of their runs), each with `value` and `interval`; runs without a value count as worst.
        `posterior`: see `compute_posterior`. `pairing_saved`: see `compute_pairing_saved`. `pairs_for_equivalence` and
        `pairs_for_difference`: how many seeds a next plan would need with this spread. None where there are too few
        values.
    """
    # Differences and spreads take seeds of which each run has a value.
    complete = [row for row in rows if all(math.isfinite(value) for value in row.values())]
    d = [contrast.sum_values(row) for row in complete]
    d_or_worst = [contrast.sum_values(row) for row in rows]
    spread = st.compute_spread(d) if len(d) > 1 else None

    # Unpaired, runs without a value count as well, as the worst ones.
    unpaired = None
    if contrast.pair is not None:
        variant, against = contrast.pair
        own = [row[variant] for row in rows]
        other = [row[against] for row in rows]
        unpaired = compute_unpaired_improvement(own, other, direction)

    # What a next plan needs follows from the spread, which a single seed does not have.
    table = [[row[name] for name in contrast.weights] for row in complete]
    estimates: dict[str, Any] = {
        "iqm": estimate_iqm(d),
        "improvement": {"paired": compute_paired_improvement(d_or_worst, direction), "unpaired": unpaired},
        "posterior": None,
        "pairing_saved": compute_pairing_saved(table, list(contrast.weights.values())),
        "pairs_for_equivalence": None,
        "pairs_for_difference": None,
    }
    if spread is not None:
        estimates["pairs_for_difference"] = count_pairs_for_difference(float(np.mean(d)), spread, contrasts)
        if margin is not None:
            estimates["posterior"] = compute_posterior(d, margin, direction)
            estimates["pairs_for_equivalence"] = count_pairs_for_equivalence(margin, spread, contrasts)
    return estimates


def estimate_iqm(values: Sequence[float]) -> dict[str, Any] | None:
    """Return the interquartile mean of values, with a bootstrap interval.

    Args:
        values: Values, of which those that the mean leaves out may be infinite.

    Returns:
        `value`, and `interval`: percentiles of the bootstrap over seeds, None with fewer than
        `statistics.BOOTSTRAP_FROM` values or where one is infinite. None in all where there are no values, or where too
        many are infinite.
    """
    if not values:
        return None
    mean = float(stats.trim_mean(values, TRIMMED))
    if not math.isfinite(mean):
        return None

    # A bootstrap of few values, or of infinite ones, would say nothing.
    interval = None
    if len(values) >= st.BOOTSTRAP_FROM and np.isfinite(values).all():
        found = stats.bootstrap(
            (np.asarray(values),),
            lambda sample, axis: stats.trim_mean(sample, TRIMMED, axis=axis),
            n_resamples=RESAMPLES,
            confidence_level=1 - st.ALPHA,
            method="percentile",
            vectorized=True,
            rng=np.random.default_rng(0),
        ).confidence_interval
        interval = [float(found.low), float(found.high)]
    return {"value": mean, "interval": interval}


def compute_paired_improvement(d: Sequence[float], direction: str) -> dict[str, Any] | None:
    """Return the share of seeds with a difference on the better side of 0; one of 0 counts half.

    Returns:
        `value`, and `interval`: that of Clopper and Pearson, widened where differences are 0. None without differences.
    """
    if not d:
        return None
    better = sum(difference < 0 if direction == "lower" else difference > 0 for difference in d)
    ties = sum(difference == 0 for difference in d)

    # All ties on one side give the lower end, and on the other the upper one.
    level = 1 - st.ALPHA
    low = stats.binomtest(better, len(d)).proportion_ci(level).low
    high = stats.binomtest(better + ties, len(d)).proportion_ci(level).high
    return {"value": (better + ties / 2) / len(d), "interval": [float(low), float(high)]}


def compute_unpaired_improvement(own: Sequence[float], other: Sequence[float], direction: str) -> dict[str, Any] | None:
    """Return the probability that a run of one variant is better than any run of another: Mann and Whitney's U / n^2.

    Args:
        own: Values of the variant, seed by seed.
        other: Values of the one that it is compared with, of the same seeds.
        direction: Which values are better.

    Returns:
        `value`, where equal values count half, and `interval`: percentiles of the bootstrap over seeds, which both
        variants share; None with fewer than `statistics.BOOTSTRAP_FROM` seeds. None in all without seeds.
    """
    if not own:
        return None
    sign = 1.0 if direction == "higher" else -1.0
    one = sign * np.asarray(own, float)[:, None]
    two = sign * np.asarray(other, float)[None, :]
    wins = (one > two) + 0.5 * (one == two)

    interval = None
    count = len(own)
    if count >= st.BOOTSTRAP_FROM:
        # How often each seed is drawn is all that a resample is.
        drawn = np.random.default_rng(0).multinomial(count, [1 / count] * count, RESAMPLES)
        shares = ((drawn @ wins) * drawn).sum(1) / count**2
        low, high = np.quantile(shares, (st.ALPHA / 2, 1 - st.ALPHA / 2))
        interval = [float(low), float(high)]
    return {"value": float(wins.mean()), "interval": interval}


def compute_posterior(d: Sequence[float], margin: float, direction: str) -> dict[str, float]:
    """Return the posterior of the mean difference, cut at the margin.

    With the reference prior 1 / sigma it is Student's distribution around the mean, of n - 1 degrees of freedom and the
    standard error's width.

    Args:
        d: At least two finite differences.
        margin: Half of the region of practical equivalence, which lies around 0.
        direction: Which values are better.

    Returns:
        The probabilities that the mean is `better` than the region, `within` it and `worse`.
    """
    # Where nothing varies, the mean is certain.
    values = np.asarray(d, float)
    mean = float(values.mean())
    if not st.do_vary(values):
        below = float(mean < -margin)
        above = float(mean > margin)
    else:
        posterior = stats.t(len(values) - 1, mean, values.std(ddof=1) / math.sqrt(len(values)))
        below = float(posterior.cdf(-margin))
        above = float(posterior.sf(margin))

    # Which side is better depends on the metric.
    better, worse = (below, above) if direction == "lower" else (above, below)
    return {"better": better, "within": max(0.0, 1.0 - below - above), "worse": worse}


def compute_pairing_saved(rows: Sequence[Sequence[float]], weights: Sequence[float]) -> float | None:
    """Return the share of the trials that pairing by seed saves, compared with runs of other seeds in each variant.

    The variance of the paired differences is compared with the one that they would have if the variants were
    independent; the trials for a given precision are proportional to it.

    Args:
        rows: For each seed the finite values of the contrast's variants.
        weights: Factor of each variant.

    Returns:
        The share, 2 r s1 s2 / (s1^2 + s2^2) for two variants; below 0 where pairing costs trials. None with fewer than
        three seeds, or where nothing varies.
    """
    if len(rows) < 3:
        return None

    # The variance that independent variants would have, and that of the differences.
    values = np.asarray(rows, float)
    factors = np.asarray(weights, float)
    spreads = np.array([st.compute_spread(column) for column in values.T])
    if not spreads.any():
        return None
    independent = float((factors**2 * spreads**2).sum())
    return 1 - st.compute_spread(values @ factors) ** 2 / independent


def count_pairs_for_equivalence(margin: float, spread: float, contrasts: int) -> int | None:
    """Return the pairs with which TOST finds equivalence in 80 % of cases where the variants do not differ at all.

    Args:
        margin: Largest difference that counts as none.
        spread: Standard deviation of the differences.
        contrasts: Number of contrasts, at least 1; the level is that of Holm's first step.

    Returns:
        The number; None above `MOST_PAIRS`.
    """
    level = st.ALPHA / contrasts
    if spread == 0:
        return 2
    return _find_fewest(lambda pairs: compute_equivalence_power(pairs, margin / spread, level), 2)


def compute_equivalence_power(pairs: int, margin: float, level: float) -> float:
    """Return the probability that TOST finds equivalence, where there is no difference.

    Args:
        pairs: Number of pairs, at least 2.
        margin: Largest difference that counts as none, in standard deviations of the differences.
        level: Level of the test.
    """
    freedom = pairs - 1
    critical = float(stats.t.ppf(1 - level, freedom))
    widest = margin * math.sqrt(pairs) / critical
    chi = stats.chi(freedom, scale=1 / math.sqrt(freedom))

    # Both one-sided tests pass where |mean| < margin - critical * s / sqrt(n), for an estimated deviation s. scipy's
    # densities take a hundred times as long for one number.
    half = freedom / 2
    constant = math.log(2) + half * math.log(half) - math.lgamma(half)

    def weigh(s: float) -> float:
        passing = math.erf((math.sqrt(pairs) * margin - critical * s) / math.sqrt(2))
        return passing * math.exp(constant + (freedom - 1) * math.log(s) - half * s**2)

    # Nearly all of the distribution of s lies here.
    low, high = (float(end) for end in chi.ppf((1e-12, 1 - 1e-12)))
    if widest <= low:
        return 0.0
    return float(integrate.quad(weigh, low, min(widest, high), limit=200)[0])


def count_pairs_for_difference(mean: float, spread: float, contrasts: int) -> int | None:
    """Return the pairs with which a mean as large as the observed one is found in 80 % of cases.

    Few pairs are tested by simulated sign flips (`statistics.find_detectable_mean`); the power of more is that of the
    t-test.

    Args:
        mean: Mean of the differences.
        spread: Their standard deviation.
        contrasts: Number of contrasts, at least 1; the level is that of Holm's first step.

    Returns:
        The number; None above `MOST_PAIRS`.
    """
    level = st.ALPHA / contrasts
    fewest = st.count_pairs_needed(contrasts)
    if spread == 0:
        return None if mean == 0 else fewest
    size = abs(mean) / spread

    # The t-test's number may be too small where sign flips of so few pairs detect less.
    pairs = _find_fewest(lambda pairs: compute_difference_power(pairs, size, level), fewest)
    while pairs is not None and pairs <= SIMULATED_UP_TO:
        detectable = st.find_detectable_mean(pairs, level)
        if detectable is not None and detectable <= size:
            break
        pairs += 1
    return pairs


def compute_difference_power(pairs: int, size: float, level: float) -> float:
    """Return the probability that a two-sided t-test finds a difference.

    Args:
        pairs: Number of pairs, at least 2.
        size: The difference, in standard deviations; at least 0.
        level: Level of the test.
    """
    shift = min(size * math.sqrt(pairs), LARGEST_SHIFT)
    critical = float(stats.t.ppf(1 - level / 2, pairs - 1))
    # The lower tail is the upper one of the opposite difference: scipy's `cdf` there is NaN from a shift of about 5 on.
    upper = stats.nct.sf(critical, pairs - 1, shift)
    lower = stats.nct.sf(critical, pairs - 1, -shift)
    return float(upper + lower)


def _find_fewest(compute_power: Callable[[int], float], fewest: int) -> int | None:
    """Return the fewest pairs, at least `fewest`, whose power is `statistics.POWER`; None above `MOST_PAIRS`."""
    if compute_power(fewest) >= st.POWER:
        return fewest

    # The power grows with the pairs: double them, then bisect.
    too_few = fewest
    enough = 2 * fewest
    while compute_power(enough) < st.POWER:
        if enough == MOST_PAIRS:
            return None
        too_few = enough
        enough = min(2 * enough, MOST_PAIRS)
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        if compute_power(middle) < st.POWER:
            too_few = middle
        else:
            enough = middle
    return enough


def compute_profiles(values: Mapping[str, Sequence[float]], direction: str) -> dict[str, Any]:
    """Return the performance profile of each variant: which share of its runs is at least as good as a threshold.

    Args:
        values: Values of each variant's runs, in the unit of the metric, infinite where a run has none.
        direction: Which values are better.

    Returns:
        `thresholds`, from the worst to the best of all runs' finite values, and of each variant `share`, `low` and
        `high` at each threshold. The band holds 95 % of the bootstrap over seeds at each threshold for itself; the
        number of resampled runs that reach it is binomial.
    """
    pooled = sorted({value for own in values.values() for value in own if math.isfinite(value)})
    if len(pooled) > MOST_THRESHOLDS:
        places = np.linspace(0, len(pooled) - 1, MOST_THRESHOLDS).round().astype(int)
        pooled = [pooled[place] for place in places]
    if direction == "lower":
        pooled.reverse()

    # The share of runs that reach each threshold, with its binomial interval.
    variants = {}
    for name, own in values.items():
        if not own:
            continue
        runs = np.asarray(own, float)[:, None]
        thresholds = np.asarray(pooled)[None, :]
        reached = (runs <= thresholds) if direction == "lower" else (runs >= thresholds)
        share = reached.mean(axis=0)
        low, high = stats.binom.ppf(np.array([[st.ALPHA / 2], [1 - st.ALPHA / 2]]), len(own), share) / len(own)
        variants[name] = {"share": share.tolist(), "low": low.tolist(), "high": high.tolist()}
    return {"thresholds": pooled, "variants": variants}

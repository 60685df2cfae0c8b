"""The estimators beside the mean, each against another way to compute it."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from pggan_kit.ablation import estimators as es
from pggan_kit.ablation import statistics as st
from pggan_kit.ablation.contrasts import Contrast, make_pair


def draw_differences(n: int, mean: float = 0.1, seed: int = 0) -> list[float]:
    return list(np.random.default_rng(seed).normal(mean, 0.2, n))


def test_the_interquartile_mean_is_that_of_the_middle_half() -> None:
    d = draw_differences(12)
    found = es.estimate_iqm(d)
    assert found is not None and found["value"] == pytest.approx(math.fsum(sorted(d)[3:9]) / 6)
    samples = np.random.default_rng(7).choice(d, (20_000, 12))
    means = np.sort(samples, axis=1)[:, 3:9].mean(1)
    assert found["interval"] == pytest.approx(list(np.quantile(means, (0.025, 0.975))), abs=0.01)


def test_the_interquartile_mean_withstands_a_quarter_of_failed_runs() -> None:
    found = es.estimate_iqm([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, math.inf, math.inf])
    assert found == {"value": (3 + 4 + 5 + 6) / 4, "interval": None}
    assert es.estimate_iqm([1.0, 2.0, 3.0, 4.0, 5.0, math.inf, math.inf, math.inf]) is None
    assert es.estimate_iqm([]) is None
    seven = es.estimate_iqm(draw_differences(7))
    assert seven is not None and seven["interval"] is None, "too few for a bootstrap"


def test_a_paired_improvement_is_the_share_of_seeds() -> None:
    d = [-0.3, -0.1, 0.0, 0.2, -math.inf]
    found = es.compute_paired_improvement(d, "lower")
    assert found is not None and found["value"] == 3.5 / 5
    # Clopper and Pearson by quantiles of the beta distribution: 3 successes below, 4 above
    assert found["interval"] == pytest.approx([stats.beta.ppf(0.025, 3, 3), stats.beta.ppf(0.975, 5, 1)])
    higher = es.compute_paired_improvement(d, "higher")
    assert higher is not None and higher["value"] == 1.5 / 5
    assert es.compute_paired_improvement([], "lower") is None


def test_an_unpaired_improvement_counts_all_pairs_of_runs() -> None:
    rng = np.random.default_rng(3)
    own = [round(value, 1) for value in rng.normal(0.0, 0.3, 9)] + [math.inf]
    other = [round(value, 1) for value in rng.normal(0.2, 0.3, 9)] + [math.inf]
    for direction, is_better in (("lower", lambda a, b: a < b), ("higher", lambda a, b: a > b)):
        wanted = [is_better(a, b) + (a == b) / 2 for a, b in itertools.product(own, other)]
        found = es.compute_unpaired_improvement(own, other, direction)
        assert found is not None and found["value"] == pytest.approx(sum(wanted) / 100)
        picks = np.random.default_rng(11).integers(0, 10, (4_000, 10))
        shares = [np.reshape(wanted, (10, 10))[np.ix_(pick, pick)].mean() for pick in picks]
        assert found["interval"] == pytest.approx(list(np.quantile(shares, (0.025, 0.975))), abs=0.03)
    assert es.compute_unpaired_improvement([], [], "lower") is None
    few = es.compute_unpaired_improvement(own[:7], other[:7], "lower")
    assert few is not None and few["interval"] is None


def test_the_posterior_is_students_and_agrees_with_draws_of_it() -> None:
    """Normal differences with the prior 1 / sigma: sigma^2 from scaled inverse chi^2, then the mean given sigma."""
    d = draw_differences(9)
    found = es.compute_posterior(d, 0.1, "lower")
    rng = np.random.default_rng(1)
    variance = 8 * np.var(d, ddof=1) / rng.chisquare(8, 400_000)
    means = np.mean(d) + np.sqrt(variance / 9) * rng.normal(size=400_000)
    wanted = {"better": (means < -0.1).mean(), "within": (abs(means) <= 0.1).mean(), "worse": (means > 0.1).mean()}
    assert found == pytest.approx(wanted, abs=0.005)
    assert sum(found.values()) == pytest.approx(1.0)
    turned = es.compute_posterior(d, 0.1, "higher")
    assert (turned["better"], turned["worse"]) == (found["worse"], found["better"])
    # One side of it is TOST's other p-value.
    assert max(found["better"], found["worse"]) == pytest.approx(st.run_equivalence_test(d, 0.1))
    assert es.compute_posterior([0.2, 0.2], 0.1, "lower") == {"better": 0.0, "within": 0.0, "worse": 1.0}


def test_what_pairing_saved_follows_from_the_correlation() -> None:
    rng = np.random.default_rng(5)
    one = rng.normal(0, 1, 10)
    other = 0.8 * one + rng.normal(0, 0.5, 10)
    r = np.corrcoef(one, other)[0, 1]
    wanted = 2 * r * one.std(ddof=1) * other.std(ddof=1) / (one.var(ddof=1) + other.var(ddof=1))
    assert es.compute_pairing_saved(np.stack([one, other], 1).tolist(), (1, -1)) == pytest.approx(wanted)
    # Four variants that share a seed's effect: their interaction leaves nothing of it.
    four = rng.normal(0, 3, 4_000)[:, None] + rng.normal(0, 1, (4_000, 4))
    assert es.compute_pairing_saved(four.tolist(), (1, -1, -1, 1)) == pytest.approx(0.9, abs=0.02)
    assert es.compute_pairing_saved([[1, 2], [2, 3]], (1, -1)) is None
    assert es.compute_pairing_saved([[1, 2]] * 4, (1, -1)) is None


@pytest.mark.parametrize(("margin", "level"), [(0.5, 0.05), (0.9, 0.025)])
def test_so_many_pairs_find_equivalence_as_often_as_is_said(margin: float, level: float) -> None:
    pairs = es.count_pairs_for_equivalence(margin * 0.2, 0.2, round(0.05 / level))
    assert pairs is not None
    rng = np.random.default_rng(2)
    for n, enough in ((pairs, True), (pairs - 1, False)):
        d = rng.normal(0, 1, (60_000, n))
        half = stats.t.ppf(1 - level, n - 1) * d.std(axis=1, ddof=1) / math.sqrt(n)
        share = (np.abs(d.mean(1)) + half < margin).mean()
        assert share == pytest.approx(es.compute_equivalence_power(n, margin, level), abs=0.006)
        assert (es.compute_equivalence_power(n, margin, level) >= 0.8) is enough
    assert es.count_pairs_for_equivalence(0.1, 0.0, 1) == 2
    assert es.count_pairs_for_equivalence(1e-4, 1.0, 1) is None


@pytest.mark.parametrize(("size", "pairs"), [(0.5, 34), (0.2, 199)])
def test_the_pairs_for_a_difference_are_those_of_printed_tables(size: float, pairs: int) -> None:
    """80 % power of a paired t-test at 5 % (Faul et al. 2007, G*Power)."""
    assert es.count_pairs_for_difference(size * 3, 3.0, 1) == pairs
    assert es.count_pairs_for_difference(-size * 3, 3.0, 1) == pairs


@pytest.mark.parametrize("level", [0.05, 0.05 / 6])
def test_the_power_of_a_t_test_is_that_of_a_sum_over_estimated_deviations(level: float) -> None:
    """By the mean of normal probabilities over quantiles of the deviation, whatever the size of the difference."""
    quantiles = (np.arange(20_000) + 0.5) / 20_000
    for pairs in (6, 7, 13, 200):
        deviations = np.sqrt(stats.chi2.ppf(quantiles, pairs - 1) / (pairs - 1))
        critical = stats.t.ppf(1 - level / 2, pairs - 1) * deviations
        for size in (0.0, 0.1, 0.5, 1.0, 2.0, 2.4, 3.8, 4.1, 10.0, 300.0, 1e16, math.inf):
            shift = size * math.sqrt(pairs)
            wanted = (stats.norm.cdf(shift - critical) + stats.norm.cdf(-shift - critical)).mean()
            assert es.compute_difference_power(pairs, size, level) == pytest.approx(wanted, abs=2e-4)


def test_the_pairs_for_a_difference_never_grow_with_it() -> None:
    """Beyond a shift of about 5 scipy's lower tail of the non-central t-distribution is NaN."""
    for contrasts, fewest in ((1, 6), (6, 8)):
        counts = [es.count_pairs_for_difference(size, 1.0, contrasts) for size in np.geomspace(1.5, 1e4, 120)]
        assert counts == sorted(counts, reverse=True) and counts[-1] == fewest  # type: ignore[type-var]
    assert [es.count_pairs_for_difference(size, 1.0, 1) for size in (3.8, 4.1, 4.4)] == [6, 6, 6]

    # Equal differences have no spread, whatever rounding makes of it.
    rows = [{"a": 0.3, "b": 0.0}] * 10
    found = es.estimate_contrast(make_pair("a", "b", ()), rows, "lower", 0.1, 1)
    assert np.std([0.3] * 10, ddof=1) > 0
    assert (found["pairs_for_difference"], found["pairs_for_equivalence"]) == (6, 2)


def test_few_pairs_for_a_difference_are_those_of_sign_flips() -> None:
    for contrasts in (1, 2):
        found = es.count_pairs_for_difference(1.6, 1.0, contrasts)
        detectable = {n: st.find_detectable_mean(n, 0.05 / contrasts) for n in range(4, 10)}
        enough = [n for n, mean in detectable.items() if mean is not None and mean <= 1.6]
        assert found == min(enough)
    assert es.count_pairs_for_difference(0.3, 0.0, 1) == 6
    assert es.count_pairs_for_difference(0.0, 0.0, 1) is None and es.count_pairs_for_difference(1e-4, 1.0, 1) is None


def test_profiles_are_shares_of_runs_with_the_band_of_a_bootstrap() -> None:
    runs = {"a": [1.0, 2.0, 3.0, 4.0, math.inf, 1.5, 2.5, 3.5], "b": [2.0, 2.0, 5.0], "c": []}
    found = es.compute_profiles(runs, "lower")
    assert found["thresholds"] == [5.0, 4.0, 3.5, 3.0, 2.5, 2.0, 1.5, 1.0] and list(found["variants"]) == ["a", "b"]
    assert found["variants"]["a"]["share"] == [k / 8 for k in (7, 7, 6, 5, 4, 3, 2, 1)]
    assert found["variants"]["b"]["share"] == pytest.approx([1, 2 / 3, 2 / 3, 2 / 3, 2 / 3, 2 / 3, 0, 0])
    picks = np.random.default_rng(0).choice(runs["a"], (20_000, 8))
    for place, threshold in enumerate(found["thresholds"]):
        low, high = np.quantile((picks <= threshold).mean(1), (0.025, 0.975), method="inverted_cdf")
        assert (found["variants"]["a"]["low"][place], found["variants"]["a"]["high"][place]) == (low, high)
    higher = es.compute_profiles({"a": [1.0, 2.0, -math.inf]}, "higher")
    assert higher["thresholds"] == [1.0, 2.0] and higher["variants"]["a"]["share"] == pytest.approx([2 / 3, 1 / 3])
    many = es.compute_profiles({"a": list(np.linspace(1, 2, 1_000))}, "lower")["thresholds"]
    assert len(many) == es.MOST_THRESHOLDS and (many[0], many[-1]) == (2.0, 1.0)


def test_a_contrast_has_all_estimates_or_none() -> None:
    rng = np.random.default_rng(4)
    rows = [dict(zip("ab", row, strict=True)) for row in rng.normal(0, 0.2, (9, 2)).tolist()]
    d = [row["a"] - row["b"] for row in rows]
    pair = make_pair("a", "b", ())
    found = es.estimate_contrast(pair, [*rows, {"a": math.inf, "b": 0.0}], "lower", 0.1, 2)
    assert found["iqm"] == es.estimate_iqm(d)
    assert found["posterior"] == es.compute_posterior(d, 0.1, "lower")
    assert found["improvement"]["paired"] == es.compute_paired_improvement([*d, math.inf], "lower")
    own = [*(row["a"] for row in rows), math.inf]
    other = [*(row["b"] for row in rows), 0.0]
    assert found["improvement"]["unpaired"] == es.compute_unpaired_improvement(own, other, "lower")
    assert found["pairs_for_equivalence"] == es.count_pairs_for_equivalence(0.1, np.std(d, ddof=1), 2)
    assert found["pairs_for_difference"] == es.count_pairs_for_difference(np.mean(d), np.std(d, ddof=1), 2)

    # Four variants: what takes two runs is not there.
    corners = Contrast("a:b", {"a": 1.0, "b": -1.0, "c": -1.0, "d": 1.0}, "confirmatory")
    four = [dict(zip("abcd", row, strict=True)) for row in rng.normal(0, 1, (9, 4)).tolist()]
    found = es.estimate_contrast(corners, four, "lower", None, 1)
    assert found["improvement"]["unpaired"] is found["posterior"] is found["pairs_for_equivalence"] is None
    sums = [row["a"] - row["b"] - row["c"] + row["d"] for row in four]
    independent = sum(np.var([row[name] for row in four], ddof=1) for name in "abcd")
    assert found["pairing_saved"] == pytest.approx(1 - np.var(sums, ddof=1) / independent)

    # No finite difference, and no runs.
    nothing = es.estimate_contrast(pair, [{"a": math.inf, "b": math.inf}], "lower", 0.1, 1)
    assert nothing["improvement"]["paired"]["value"] == 0.5 and nothing["iqm"] is nothing["posterior"] is None
    assert es.estimate_contrast(pair, [], "lower", 0.1, 1)["improvement"] == {"paired": None, "unpaired": None}


def test_estimates_of_what_varies_by_rounding_alone() -> None:
    d = [0.3 - 0.2, 0.4 - 0.3, 0.5 - 0.4]
    assert len(set(d)) > 1
    assert es.compute_posterior(d, 0.11, "lower") == {"better": 0.0, "within": 1.0, "worse": 0.0}
    assert es.compute_pairing_saved([[value, value] for value in d], [1.0, -1.0]) is None
    assert es.compute_pairing_saved([[1.0, 1.1], [2.0, 2.1], [3.0, 3.1]], [1.0, -1.0]) == 1.0

"""The statistics of paired differences, each against another way to compute it."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as draw
from scipy import stats

from pggan_kit.ablation import statistics as st

NUMBERS = draw.floats(-5, 5, allow_nan=False).map(lambda x: round(x, 3))


def spread(n: int, mean: float = 0.1, seed: int = 0) -> list[float]:
    return list(np.random.default_rng(seed).normal(mean, 0.2, n))


def test_t_interval_is_scipys_and_that_of_the_formula() -> None:
    d = spread(9)
    wanted = stats.ttest_1samp(d, 0).confidence_interval(0.95)
    assert st.t_interval(d) == pytest.approx((wanted.low, wanted.high))
    # 1, 2, 3: mean 2, standard error 1 / sqrt(3), t(0.975, 2) = 4.302653 (a printed table)
    assert st.t_interval([1, 2, 3]) == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5), rel=1e-6)


def enumerated(d: list[float]) -> float:
    observed = abs(math.fsum(d))
    sums = [
        abs(math.fsum(s * x for s, x in zip(signs, d, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(d))
    ]
    return sum(total >= observed - 1e-12 for total in sums) / len(sums)


@settings(max_examples=40, deadline=None)
@given(draw.lists(NUMBERS, min_size=1, max_size=9))
def test_sign_flips_up_to_16_pairs_are_all_patterns(d: list[float]) -> None:
    found = st.sign_flip(d)
    assert found.exact and found.patterns == 2 ** len(d)
    assert found.p == pytest.approx(enumerated(d))


def test_sign_flips_are_scipys_permutation_test() -> None:
    d = spread(12)
    wanted = stats.permutation_test((d,), np.mean, permutation_type="samples", n_resamples=2**12)
    assert st.sign_flip(d).p == pytest.approx(wanted.pvalue)


def test_sign_flips_of_more_pairs_are_drawn_and_never_0() -> None:
    d = spread(18, mean=0.12, seed=3)
    signs = 1 - 2 * np.array([[number >> bit & 1 for bit in range(18)] for number in range(0, 2**18)])
    exact = (abs(signs @ d) >= abs(sum(d)) - 1e-12).mean()
    found = st.sign_flip(d)
    assert not found.exact and found.patterns == st.DRAWN
    assert 0.01 < exact < 0.5 and found.p == pytest.approx(exact, abs=4 * (exact / st.DRAWN) ** 0.5)
    assert st.sign_flip([1.0] * 60).p == 1 / (st.DRAWN + 1)
    assert st.sign_flip([1.0] * 16).p == 2 / 2**16, "all of one sign, or all of the other"


def test_signed_ranks_flipped_are_wilcoxons_test() -> None:
    d = spread(11, seed=5)
    assert st.sign_flip(st.signed_ranks(d)).p == pytest.approx(stats.wilcoxon(d, method="exact").pvalue)


def test_dead_runs_rank_worst_and_share_their_rank() -> None:
    assert st.signed_ranks([0.5, -math.inf, -0.1, math.inf, 0.0]) == [3, -4.5, -2, 4.5, 0]


@settings(max_examples=50, deadline=None)
@given(draw.lists(draw.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_the_closed_test_of_bonferronis(p: list[float]) -> None:
    """A hypothesis falls where every set of hypotheses with it falls by Bonferroni."""
    named = {str(i): value for i, value in enumerate(p)}
    subsets = [s for size in range(1, len(p) + 1) for s in itertools.combinations(named, size)]
    for name, adjusted in st.holm(named).items():
        wanted = max(min(1.0, len(s) * min(named[other] for other in s)) for s in subsets if name in s)
        assert adjusted == pytest.approx(wanted)


def test_holm_of_an_example() -> None:
    assert st.holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})
    assert st.holm({}) == {}


def test_equivalence_is_the_worse_of_two_one_sided_tests() -> None:
    d = spread(15, mean=0.02)
    error = np.std(d, ddof=1) / 15**0.5
    above, below = (stats.t.sf((0.15 + sign * np.mean(d)) / error, 14) for sign in (1, -1))
    assert st.equivalence(d, 0.15) == pytest.approx(max(above, below))
    low, high = st.t_interval(d, 0.9)  # TOST at 5 % holds just where the 90 % interval lies within
    inside = max(-low, high)
    assert st.equivalence(d, inside * 1.001) < 0.05 < st.equivalence(d, inside * 0.999)


def test_without_spread_equivalence_is_a_comparison() -> None:
    assert [st.equivalence([x, x, x], 0.1) for x in (0.0, 0.05, 0.2)] == [0.0, 0.0, 1.0]
    assert st.smallest_effect([0.1, 0.1]) == 0.0


@pytest.mark.parametrize(("effect", "pairs"), [(0.5, 34), (0.8, 15), (0.2, 199)])
def test_smallest_effect_is_that_of_printed_tables(effect: float, pairs: int) -> None:
    """So many pairs does a two-sided paired t-test at 5 % need for 80 % power (Faul et al. 2007, G*Power)."""
    for n, enough in ((pairs, True), (pairs - 1, False)):
        d = np.arange(n) - (n - 1) / 2
        found = st.smallest_effect(list(d)) / d.std(ddof=1)
        assert bool(found <= effect) is enough and found == pytest.approx(effect, rel=0.05)


def test_smallest_effect_of_few_pairs_is_found_as_often_as_it_says() -> None:
    rng, d = np.random.default_rng(0), [-1.0, 0.0, 1.0]
    effect = st.smallest_effect(d, alpha=0.02)
    tries = rng.normal(effect, 1.0, (40_000, 3))
    assert (stats.ttest_1samp(tries, 0, axis=1).pvalue < 0.02).mean() == pytest.approx(0.8, abs=0.01)


def test_the_bootstrap_needs_8_pairs_and_agrees_with_t_for_many() -> None:
    assert st.bootstrap_interval(spread(7)) is None and st.bootstrap_interval([0.1] * 9) is None
    assert st.bootstrap_interval(spread(8)) is not None
    d = spread(200)
    assert st.bootstrap_interval(d) == pytest.approx(st.t_interval(d), abs=0.005)


def test_failures_are_compared_by_mcnemar() -> None:
    found = st.failures([(True, False)] * 5 + [(True, True)] + [(False, False)] * 4)
    assert (found.variant, found.against, found.variant_alone, found.against_alone) == (6, 1, 5, 0)
    assert found.p == 2 * 0.5**5
    one_more = st.failures([(True, False)] * 5 + [(False, True)])
    assert one_more.p == pytest.approx(2 * (math.comb(6, 0) + math.comb(6, 1)) / 2**6)
    assert st.failures([(False, False)]).p == 1.0


def test_correlation_of_pairs() -> None:
    one, other = spread(10), spread(10, seed=1)
    assert st.correlation(one, other) == pytest.approx(np.corrcoef(one, other)[0, 1])
    assert st.correlation([1, 2], [1, 2]) is None and st.correlation([1, 1, 1], [1, 2, 3]) is None

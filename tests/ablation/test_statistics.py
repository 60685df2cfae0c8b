"""The statistics of paired differences, each against another way to compute it."""

from __future__ import annotations

import itertools
import math
import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as draw
from scipy import stats

from pggan_kit.ablation import statistics as st

NUMBERS = draw.floats(-5, 5, allow_nan=False).map(lambda x: round(x, 3))


def draw_differences(n: int, mean: float = 0.1, seed: int = 0) -> list[float]:
    return list(np.random.default_rng(seed).normal(mean, 0.2, n))


def test_t_interval_is_that_of_scipy_and_of_the_formula() -> None:
    d = draw_differences(9)
    wanted = stats.ttest_1samp(d, 0).confidence_interval(0.95)
    assert st.compute_t_interval(d) == pytest.approx((wanted.low, wanted.high))
    # 1, 2, 3: mean 2, standard error 1 / sqrt(3), t(0.975, 2) = 4.302653 (a printed table)
    assert st.compute_t_interval([1, 2, 3]) == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5), rel=1e-6)


def enumerate_p(d: list[float]) -> float:
    observed = abs(math.fsum(d))
    sums = [
        abs(math.fsum(s * x for s, x in zip(signs, d, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(d))
    ]
    return sum(total >= observed - 1e-12 for total in sums) / len(sums)


@settings(max_examples=40, deadline=None)
@given(draw.lists(NUMBERS, min_size=1, max_size=9))
@example([0.001, 0.002, -0.003])
@example([0.0, 0.0])
def test_sign_flips_up_to_16_pairs_are_all_patterns(d: list[float]) -> None:
    test = st.run_sign_flip_test(d)
    assert test.exact and test.patterns == 2 ** len(d)
    assert test.p == enumerate_p(d)


def test_sums_that_are_equal_but_for_rounding_count_as_equal() -> None:
    """Of +-1, +-2, +-3 tenths 0.3 + 0.3 - 0.6 may be off by an ulp; counted by hand in whole numbers."""
    d = [0.1, 0.2, 0.3, 0.6]
    whole = [1, 2, 3, 6]
    for signs in itertools.product((1, -1), repeat=4):
        wanted = enumerate_p([float(s * x) for s, x in zip(signs, whole, strict=True)])
        assert st.run_sign_flip_test([s * x for s, x in zip(signs, d, strict=True)]).p == wanted


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_what_is_not_finite_is_no_difference(wrong: float) -> None:
    """A comparison with NaN is never true, which once gave p = 0."""
    d = [wrong, *draw_differences(7)]
    for test in (st.run_sign_flip_test, st.compute_t_interval, st.find_smallest_effect, st.bootstrap_mean):
        with pytest.raises(ValueError, match=r"^differences must be finite numbers, not \["):
            test(d)  # type: ignore[operator]
    with pytest.raises(ValueError, match=r"^differences must be finite numbers, not \["):
        st.run_equivalence_test(d, 0.1)
    with pytest.raises(ValueError, match=r"^differences must be numbers, not \[nan"):
        st.rank_with_signs([math.nan, 1.0])


@pytest.mark.parametrize(("contrasts", "pairs"), [(1, 6), (2, 7), (3, 7), (4, 8), (6, 8), (7, 9)])
def test_the_pairs_that_are_needed_and_no_more_reach_the_level(contrasts: int, pairs: int) -> None:
    """The clearest result, all differences alike, is below the level after Holm, and not with a pair less."""
    for n, reached in ((pairs, True), (pairs - 1, False)):
        p = st.run_sign_flip_test([1.0] * n).p
        assert p == st.compute_smallest_p(n) == 2 / 2**n
        adjusted = st.adjust_by_holm({str(i): p for i in range(contrasts)})["0"]
        assert (adjusted < st.ALPHA) is reached
    assert st.count_pairs_needed(contrasts) == pairs


def test_sign_flips_of_more_pairs_are_drawn_and_never_0() -> None:
    d = draw_differences(17, mean=0.12, seed=3)
    signs = 1 - 2 * (np.arange(2**17)[:, None] >> np.arange(17) & 1)
    exact = (abs(signs @ d) >= abs(sum(d)) - 1e-12).mean()
    test = st.run_sign_flip_test(d)
    assert not test.exact and test.patterns == st.DRAWN
    assert 0.01 < exact < 0.5 and test.p == pytest.approx(exact, abs=4 * (exact / st.DRAWN) ** 0.5)
    assert st.run_sign_flip_test([1.0] * 40).p == st.compute_smallest_p(40) == 1 / (st.DRAWN + 1)
    assert st.run_sign_flip_test([1.0] * 16).p == 2 / 2**16, "all of one sign, or all of the other"


def test_signed_ranks_flipped_are_wilcoxons_test() -> None:
    d = draw_differences(11, seed=5)
    assert st.run_sign_flip_test(st.rank_with_signs(d)).p == pytest.approx(stats.wilcoxon(d, method="exact").pvalue)


def test_infinite_differences_rank_highest_and_share_their_rank() -> None:
    assert st.rank_with_signs([0.5, -math.inf, -0.1, math.inf, 0.0]) == [3, -4.5, -2, 4.5, 0]


@settings(max_examples=50, deadline=None)
@given(draw.lists(draw.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_the_closed_test_of_bonferronis(p: list[float]) -> None:
    """A hypothesis falls where every set of hypotheses with it falls by Bonferroni."""
    named = {str(i): value for i, value in enumerate(p)}
    subsets = [s for size in range(1, len(p) + 1) for s in itertools.combinations(named, size)]
    for name, adjusted in st.adjust_by_holm(named).items():
        wanted = max(min(1.0, len(s) * min(named[other] for other in s)) for s in subsets if name in s)
        assert adjusted == pytest.approx(wanted)


def test_holm_of_an_example() -> None:
    assert st.adjust_by_holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})
    assert st.adjust_by_holm({}) == {}


def test_equivalence_is_the_worse_of_two_one_sided_tests() -> None:
    d = draw_differences(15, mean=0.02)
    error = np.std(d, ddof=1) / 15**0.5
    above, below = (stats.t.sf((0.15 + sign * np.mean(d)) / error, 14) for sign in (1, -1))
    assert st.run_equivalence_test(d, 0.15) == pytest.approx(max(above, below))
    low, high = st.compute_t_interval(d, 0.9)  # TOST at 5 % holds just where the 90 % interval lies within
    inside = max(-low, high)
    assert st.run_equivalence_test(d, inside * 1.001) < 0.05 < st.run_equivalence_test(d, inside * 0.999)


def test_without_spread_equivalence_is_a_comparison() -> None:
    assert [st.run_equivalence_test([x, x, x], 0.1) for x in (0.0, 0.05, 0.2)] == [0.0, 0.0, 1.0]


@pytest.mark.parametrize(("effect", "pairs"), [(0.5, 34), pytest.param(0.2, 199, marks=pytest.mark.slow)])
def test_with_many_pairs_the_smallest_effect_is_that_of_the_t_test(effect: float, pairs: int) -> None:
    """Compare with printed tables: pairs for 80 % power of a paired t-test at 5 % (Faul et al. 2007, G*Power)."""
    d = np.arange(pairs) - (pairs - 1) / 2
    assert st.find_smallest_effect(list(d)) == pytest.approx(effect * d.std(ddof=1), rel=0.03)


@pytest.mark.parametrize(("pairs", "alpha"), [(6, 0.05), (8, 0.0125), (10, 0.05)])
def test_the_smallest_effect_is_found_by_sign_flips_as_often_as_it_says(pairs: int, alpha: float) -> None:
    """By a count over all patterns of other samples. Six pairs are below 5 % only where all have one sign."""
    effect = st.find_detectable_mean(pairs, alpha)
    assert effect is not None
    tries = np.random.default_rng(5).normal(effect, 1.0, (3_000, pairs))
    signs = np.array(list(itertools.product((1, -1), repeat=pairs)))
    p = (np.abs(tries @ signs.T) >= np.abs(tries.sum(1))[:, None] - 1e-9).mean(1)
    assert (p < alpha).mean() == pytest.approx(0.8, abs=0.03)
    if pairs == 6:
        assert (p < alpha).mean() == pytest.approx(stats.norm.cdf(effect) ** 6, abs=0.03)


@pytest.mark.parametrize("pairs", [13, 14, 15, 16])
def test_the_smallest_effect_at_the_smallest_level_needs_one_sign(pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below twice the smallest p, a difference is found where all pairs have its sign, and nowhere else."""
    monkeypatch.setattr(st, "SIMULATED", 500)
    effect = st.find_detectable_mean.__wrapped__(pairs, 3 / 2**pairs)
    assert effect == pytest.approx(stats.norm.ppf(0.8 ** (1 / pairs)), rel=0.05)


def test_a_level_that_no_mean_reaches_with_the_patterns_drawn_has_no_smallest_effect(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The observed pattern is among those of 17 pairs more than once."""
    monkeypatch.setattr(st, "SIMULATED", 20)
    monkeypatch.setattr(st, "_list_sign_patterns", lambda *arguments: (np.ones((st.DRAWN, 17), np.int8), False))
    assert st.find_detectable_mean.__wrapped__(17, 2e-5) is None


def test_the_smallest_effect_takes_little_memory_at_a_small_level(monkeypatch: pytest.MonkeyPatch) -> None:
    """100,000 patterns and 200 samples, whose means would take 160 MB at once."""
    monkeypatch.setattr(st, "SIMULATED", 200)
    tracemalloc.start()
    try:
        effect = st.find_detectable_mean.__wrapped__(20, 1e-4)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10_000_000
    # With a known spread of 1 the test would be that of a normal mean, which needs a little less.
    known = (stats.norm.isf(0.5e-4) + stats.norm.isf(0.2)) / 20**0.5
    assert effect is not None and known < effect < 1.4 * known


def test_the_smallest_effect_of_a_tiny_level_takes_no_more_patterns_than_the_test() -> None:
    """The first look of 17 of 60 pairs has a level of 5e-6, and its test draws 100,000 patterns."""
    assert len(st._list_sign_patterns(17, 5e-6, np.random.default_rng(0))[0]) == st.DRAWN


@pytest.mark.parametrize(("pairs", "alpha"), [(9, 0.05), (15, 0.01)])
def test_the_smallest_effect_does_not_depend_on_the_patterns_at_once(
    pairs: int, alpha: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(st, "SIMULATED", 100)
    effects = set()
    for at_once in (7, 1_000, 10**6):
        monkeypatch.setattr(st, "PATTERNS_AT_ONCE", at_once)
        effects.add(st.find_detectable_mean.__wrapped__(pairs, alpha))
    assert len(effects) == 1 and None not in effects


def test_without_enough_pairs_no_effect_is_found() -> None:
    assert st.find_detectable_mean(5) is None and st.find_smallest_effect(draw_differences(5)) is None
    assert st.find_detectable_mean(6, 0.025) is None and st.find_smallest_effect([0.1] * 4) is None
    assert st.find_smallest_effect([0.1] * 6) == 0.0


def test_the_bootstrap_needs_8_pairs_and_agrees_with_t_for_many() -> None:
    assert st.bootstrap_mean(draw_differences(7)) is None and st.bootstrap_mean([0.1] * 9) is None
    assert st.bootstrap_mean(draw_differences(8)) is not None
    d = draw_differences(200)
    assert st.bootstrap_mean(d) == pytest.approx(st.compute_t_interval(d), abs=0.005)


def test_differences_that_are_equal_but_for_rounding_share_their_rank() -> None:
    d = [0.31 - 0.30, -(0.12 - 0.11), 0.43 - 0.42, -(0.56 - 0.55), 0.5]
    assert st.rank_with_signs(d) == st.rank_with_signs([0.01, -0.01, 0.01, -0.01, 0.5]) == [2.5, -2.5, 2.5, -2.5, 5.0]
    assert st.rank_with_signs([0.0, 0.0, -math.inf]) == [0.0, 0.0, -3.0]


def test_what_varies_by_rounding_alone_does_not_vary() -> None:
    """scipy would warn, and give NaN or a correlation of rounding errors."""
    d = [0.3 - 0.2] * 4 + [0.4 - 0.3] * 4
    assert len(set(d)) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not st.do_vary(d) and st.do_vary([*d, 0.1 + 1e-9])
        assert st.compute_spread(d) == 0.0 and st.bootstrap_mean(d) is None
        assert st.run_equivalence_test(d, 0.11) == 0.0 and st.run_equivalence_test(d, 0.09) == 1.0
        assert st.correlate_pairs(d, list(range(8))) is None and st.correlate_pairs(list(range(8)), d) is None


def test_failures_are_compared_by_mcnemar() -> None:
    failures = st.compare_failures([(True, False)] * 5 + [(True, True)] + [(False, False)] * 4)
    assert (failures.variant, failures.against, failures.variant_alone, failures.against_alone) == (6, 1, 5, 0)
    assert failures.p == 2 * 0.5**5
    one_more = st.compare_failures([(True, False)] * 5 + [(False, True)])
    assert one_more.p == pytest.approx(2 * (math.comb(6, 0) + math.comb(6, 1)) / 2**6)
    assert st.compare_failures([(False, False)]).p == 1.0


def test_correlation_of_pairs() -> None:
    one = draw_differences(10)
    other = draw_differences(10, seed=1)
    assert st.correlate_pairs(one, other) == pytest.approx(np.corrcoef(one, other)[0, 1])
    assert st.correlate_pairs([1, 2], [1, 2]) is None and st.correlate_pairs([1, 1, 1], [1, 2, 3]) is None

"""Boundaries of sign flips at several looks, against all patterns."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest

from pggan_kit.ablation import flips_at_looks
from pggan_kit.ablation import statistics as st
from pggan_kit.ablation.error_spending import spend_on_hypothesis


def find_by_brute_force(looks: list[list[float]], spent: list[float]) -> tuple[float, float, bool]:
    """Return the boundary of the last look, the share of the patterns rejected by it, and whether the sample is."""
    n = len(looks[-1])
    patterns = list(itertools.product((1, -1), repeat=n))
    rejected: set[tuple[int, ...]] = set()
    bound = math.inf
    for scores, error in zip(looks, spent, strict=True):
        own = {}
        for signs in patterns:
            own[signs] = abs(math.fsum(s * x for s, x in zip(signs, scores, strict=False))) / len(scores)
        bound = math.inf
        new = {round(value, 9) for signs, value in own.items() if signs not in rejected}
        for candidate in sorted(new, reverse=True):
            crossing = {signs for signs in patterns if own[signs] >= candidate - 1e-9} | rejected
            if len(crossing) / len(patterns) >= error:
                break
            bound = candidate
        sample_is_rejected = own[(1,) * n] >= bound - 1e-9
        rejected |= {signs for signs in patterns if own[signs] >= bound - 1e-9}
    return bound, len(rejected) / len(patterns), sample_is_rejected


@pytest.mark.parametrize("kind", ["normal", "ties", "zeros", "ranks"])
def test_boundaries_of_few_pairs_are_those_of_all_patterns(kind: str) -> None:
    rng = np.random.default_rng(1)
    found = Counter[bool]()
    for _ in range(12):
        d = rng.normal(0.8, 1.0, 9)
        if kind == "ties":
            d = rng.integers(-2, 4, 9) / 10
        if kind == "zeros":
            d[rng.integers(0, 9, 3)] = 0.0
        looks = [d[:count] for count in (5, 7, 9)]
        if kind == "ranks":  # a run without a value among the pairs of the second look: ranks from there on
            d[6] = math.inf
            looks[1:] = [np.array(st.rank_with_signs(d[:count].tolist())) for count in (7, 9)]
        spent = [0.07, 0.1, 0.2]
        for count in (1, 2, 3):
            own = [look.tolist() for look in looks[:count]]
            bound, share, rejects = find_by_brute_force(own, spent[:count])
            test = flips_at_looks.test_by_flips(looks[:count], spent[:count], 9)
            assert test.boundary == pytest.approx(bound, abs=1e-8)
            assert (test.spent, test.rejects) == (share, rejects) and share < spent[count - 1]
            assert test.statistic == pytest.approx(abs(np.mean(looks[count - 1])))
            assert test.p == st.run_sign_flip_test(own[-1]).p
            found[rejects] += 1
    assert min(found[True], found[False]) > 3


def test_of_all_signs_of_a_sample_no_more_are_rejected_than_is_spent() -> None:
    """Without an effect all signs are equally likely: this is the error, counted, for differences of any size."""
    size = np.abs(np.random.default_rng(2).standard_t(2, 9))
    spent = spend_on_hypothesis("pocock", (5, 7, 9), 1, 2)
    assert st.compute_smallest_p(5) > spent[0], "the first look can reject none, and leaves its error to the others"
    rejected = 0
    for signs in itertools.product((1, -1), repeat=9):
        d = size * signs
        tests = [flips_at_looks.test_by_flips([d[:5], d[:7], d][:count], spent[:count], 9) for count in (1, 2, 3)]
        rejected += any(test.rejects for test in tests)
    assert rejected / 2**9 == tests[-1].spent
    assert 0.04 < tests[-1].spent < 0.05


def test_drawn_patterns_agree_with_all_of_them() -> None:
    d = np.random.default_rng(3).normal(0.55, 1.0, 18)
    spent = spend_on_hypothesis("pocock", (10, 18), 1, 2)
    test = flips_at_looks.test_by_flips([d[:10], d], spent, 18)

    signs = 1.0 - 2 * ((np.arange(2**17)[:, None] >> np.arange(18)) & 1)
    early = np.abs(signs[:, :10] @ d[:10])
    late = np.abs(signs @ d)
    bound = flips_at_looks.test_by_flips([d[:10]], spent[:1], 18).boundary * 10
    crossed = early >= bound - 1e-9
    left = math.ceil(spent[1] * 2**17 - crossed.sum()) - 1
    exact = np.sort(late[~crossed])[-left] / 18
    assert test.boundary == pytest.approx(exact, rel=0.01)
    assert test.p == pytest.approx((late >= abs(d.sum()) - 1e-9).mean(), abs=0.002)
    assert test.spent < 0.05

"""Levels of several looks, against printed tables and scipy's normal distribution."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pggan_kit.ablation import statistics as st
from pggan_kit.ablation.error_spending import SPENDING, find_levels, spend_on_hypothesis

FIFTHS = (2, 4, 6, 8, 10)
PUBLISHED = {
    # Two-sided 5 %, five equal steps: Lan and DeMets 1983; also Jennison and Turnbull 2000, chapter 7.
    "obrien_fleming": (4.877, 3.357, 2.680, 2.290, 2.031),
    "pocock": (2.438, 2.427, 2.410, 2.397, 2.386),
}


@pytest.mark.parametrize("spending", SPENDING)
def test_levels_are_those_of_printed_tables(spending: str) -> None:
    spent = spend_on_hypothesis(spending, FIFTHS, 1, 2)
    assert spent[-1] == st.ALPHA and list(spent) == sorted(spent)
    levels = find_levels(FIFTHS, spent, 2)
    assert stats.norm.isf(np.array(levels) / 2) == pytest.approx(PUBLISHED[spending], abs=6e-4)


@pytest.mark.parametrize("sides", [1, 2])
@pytest.mark.parametrize("spending", SPENDING)
def test_levels_spend_the_error_by_scipys_normal_distribution(spending: str, sides: int) -> None:
    """Unequal steps: the probability that no look crosses its bound is that of a rectangle."""
    looks = (8, 14, 20)
    spent = spend_on_hypothesis(spending, looks, 2, sides)
    bounds = stats.norm.isf(np.array(find_levels(looks, spent, sides)) / sides)
    for count in (1, 2, 3):
        n = np.array(looks[:count])
        covariance = np.sqrt(np.minimum.outer(n, n) / np.maximum.outer(n, n))
        low = -bounds[:count] if sides == 2 else np.full(count, -np.inf)
        inside = stats.multivariate_normal(np.zeros(count), covariance).cdf(bounds[:count], lower_limit=low)
        assert 1 - inside == pytest.approx(spent[count - 1], abs=2e-5)

"""Means on the scale on which values are compared."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from pggan_kit.evaluation.scales import compute_mean, convert_to_scale


def test_the_mean_of_logarithms_is_the_geometric_one_to_0() -> None:
    """With a value of 0 it was the arithmetic one in a sweep: worse than that of values above 0."""
    values = [1.0, 4.0, 9.0]
    assert compute_mean(values, "log") == pytest.approx(stats.gmean(values))
    assert compute_mean(values, "plain") == pytest.approx(14 / 3)
    assert compute_mean([0.0, 100.0], "log") == stats.gmean([0.0, 100.0]) == 0.0
    assert compute_mean([0.1], "log") == 0.1
    assert math.isnan(compute_mean([1.0, math.inf], "plain")) and math.isnan(compute_mean([math.nan], "log"))


def test_a_value_on_its_scale() -> None:
    assert convert_to_scale(-2.0, "plain") == -2.0
    assert convert_to_scale(math.e, "log") == pytest.approx(1.0) and convert_to_scale(0.0, "log") == -math.inf

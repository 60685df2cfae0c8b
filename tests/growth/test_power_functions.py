"""Test the arithmetic of power functions against integrals, a fit on a grid, and the code of ema-pytorch."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from ema_pytorch.post_hoc_ema import p_dot_p, sigma_rel_to_gamma, solve_weights
from scipy.integrate import quad

from pggan_kit.growth.power_functions import (
    LARGEST_WIDTH,
    compute_power_share,
    convert_width_to_exponent,
    fit_profile,
)

WIDTHS = (0.002, 0.01, 0.05, 0.1, 0.15, 0.25, 0.288)


def profile(age: float, exponent: float, end: float) -> float:
    if age > end:
        return 0.0
    return (exponent + 1) * age**exponent / end ** (exponent + 1)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_width_is_the_standard_deviation_of_its_profile(width: float) -> None:
    exponent = convert_width_to_exponent(width)
    moments = [quad(lambda s, k=k: s**k * profile(s, exponent, 1.0), 0, 1, epsabs=1e-13)[0] for k in (0, 1, 2)]
    assert moments[0] == pytest.approx(1)
    assert math.sqrt(moments[2] - moments[1] ** 2) == pytest.approx(width, rel=1e-4)
    assert math.sqrt((exponent + 1) / (exponent + 3)) / (exponent + 2) == pytest.approx(width, rel=1e-9)
    assert exponent == pytest.approx(sigma_rel_to_gamma(width), rel=1e-9)


def test_the_largest_width_weighs_all_ages_alike() -> None:
    assert convert_width_to_exponent(12**-0.5) == pytest.approx(0, abs=1e-9)
    assert 0 < convert_width_to_exponent(LARGEST_WIDTH) < 0.1


def test_shares_of_updates_give_the_profile_whatever_the_batches() -> None:
    exponent = 3.7
    batches = [5, 1, 1, 30, 2, 64, 64, 7]
    shares = []
    age = 0
    for images in batches:
        shares.append(compute_power_share(exponent, age, images))
        age += images
    for index, end in enumerate(itertools.accumulate(batches)):
        weight = shares[index] * math.prod(1 - share for share in shares[index + 1 :])
        wanted = quad(profile, end - batches[index], end, (exponent, age))[0]
        assert weight == pytest.approx(wanted, rel=1e-9)


KEPT = [(times, exponent) for times in (25.0, 50.0, 75.0, 100.0) for exponent in (16.97, 6.94)]


def solve_with_sum_1(products: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the minimum of `x A x - 2 b x` among all x with the sum 1, by Lagrange's multiplier."""
    count = len(targets)
    matrix = np.ones((count + 1, count + 1))
    matrix[:count, :count] = products
    matrix[count, count] = 0.0
    solution: np.ndarray = np.linalg.solve(matrix, np.append(targets, 1.0))
    return solution[:count]


@pytest.mark.parametrize("width", [0.03, 0.05, 0.07, 0.1, 0.15])
def test_a_fit_is_the_nearest_sum_on_a_grid(width: float) -> None:
    exponent = convert_width_to_exponent(width)
    fit = fit_profile([time for time, _ in KEPT], [power for _, power in KEPT], 100.0, exponent)

    # Midpoints of 40,000 cells; the solver sees columns and no integral.
    grid = (np.arange(40_000) + 0.5) / 400
    columns = np.stack([[profile(s, power, time) for s in grid] for time, power in KEPT], 1)
    wanted = np.array([profile(s, exponent, 100.0) for s in grid])
    nearest = columns @ solve_with_sum_1(columns.T @ columns, columns.T @ wanted)
    error = np.linalg.norm(nearest - wanted) / np.linalg.norm(wanted)
    assert sum(fit.coefficients) == pytest.approx(1, abs=1e-12)
    assert fit.error == pytest.approx(error, rel=1e-2, abs=1e-6)
    distance = np.linalg.norm(columns @ np.array(fit.coefficients) - wanted) / np.linalg.norm(wanted)
    assert distance == pytest.approx(error, rel=1e-2, abs=1e-4)


@pytest.mark.parametrize("width", [0.03, 0.07, 0.15])
def test_factors_are_those_of_ema_pytorch_but_for_their_sum(width: float) -> None:
    times = torch.tensor([time for time, _ in KEPT], dtype=torch.float64)
    powers = torch.tensor([power for _, power in KEPT], dtype=torch.float64)
    exponent = convert_width_to_exponent(width)
    end = torch.full((1,), 100.0, dtype=torch.float64)
    exponents = torch.full((1,), exponent, dtype=torch.float64)
    products = p_dot_p(times[:, None], powers[:, None], times[None], powers[None]).numpy()
    targets = p_dot_p(times, powers, end, exponents).numpy()

    fit = fit_profile(times.tolist(), powers.tolist(), 100.0, exponent)
    assert fit.coefficients == pytest.approx(solve_with_sum_1(products, targets).tolist(), rel=1e-6, abs=1e-9)
    theirs = solve_weights(times, powers, end, exponents)[:, 0].tolist()
    missing = abs(1 - sum(theirs))
    assert 1e-5 < missing < 0.1 and fit.coefficients == pytest.approx(theirs, abs=5 * missing)


@pytest.mark.parametrize("kept", [0.05, 0.1])
def test_a_profile_that_was_kept_is_itself(kept: float) -> None:
    exponents = [convert_width_to_exponent(width) for width in (0.05, 0.1)]
    wanted = convert_width_to_exponent(kept)
    fit = fit_profile([60, 60, 90, 90], exponents * 2, 90, wanted)
    assert fit.coefficients == pytest.approx([0, 0, *(float(each == wanted) for each in exponents)], abs=1e-7)
    assert fit.error < 1e-6

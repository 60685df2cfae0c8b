"""Average weights by power functions of their age, and make one average of the sum of others.

The profile of exponent g over a piece's age t gives the weights at the age s <= t the density (g + 1) s^g / t^(g + 1)
(Karras et al. 2024, "Analyzing and Improving the Training Dynamics of Diffusion Models", arXiv:2312.02696, section
3.1). Its width is its standard deviation in units of t.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

LARGEST_WIDTH = 0.288
"""Largest width: the profile that weighs all ages alike, whose exponent is 0, has 0.2887, the square root of 1 / 12."""

NEGLIGIBLE = 1e-13
"""Singular value, relative to the largest, below which a direction of the fit is noise of float64."""


def convert_width_to_exponent(width: float) -> float:
    """Return the exponent of the profile of a width, in (0, LARGEST_WIDTH].

    The variance of the profile is (g + 1) / ((g + 2)^2 (g + 3)), which falls as g grows from 0.
    """
    ratio = width**-2
    # (g + 2)^2 (g + 3) = ratio * (g + 1)
    roots = np.roots([1.0, 7.0, 16.0 - ratio, 12.0 - ratio])
    return max(0.0, float(roots.real.max()))


def compute_power_share(exponent: float, age: int, images: int) -> float:
    """Return the share of the profile's weight that lies between `age` and `age + images`, at the end of them."""
    return float(1.0 - (age / (age + images)) ** (exponent + 1))


@dataclass(frozen=True)
class Fit:
    """A profile as the sum of others.

    Attributes:
        coefficients: Factor of each of the others.
        error: Distance of the sum from the profile, as a share of the profile's L2 norm.
    """

    coefficients: list[float]
    error: float


def fit_profile(ages: Sequence[float], exponents: Sequence[float], age: float, exponent: float) -> Fit:
    """Return the sum of profiles that is nearest to another one, by least squares in float64 (appendix C.2).

    The factors add up to 1, as all profiles do: what is the same at all ages, which is most of a weight, stays exact
    even where few averages were kept of a young piece. The paper, which has many, leaves that to the least squares.

    Args:
        ages: Ages of a piece, above 0, at which its average was kept.
        exponents: Exponent of each of these averages.
        age: The age at the end of the profile that is looked for.
        exponent: Its exponent.
    """
    times = np.asarray(ages, np.float64)
    powers = np.asarray(exponents, np.float64)
    products = _integrate_products(times[:, None], powers[:, None], times[None], powers[None])
    targets = _integrate_products(times, powers, np.float64(age), np.float64(exponent))
    length = math.sqrt(float(_integrate_products(age, exponent, age, exponent)))

    # All profiles have the length 1, so that young and old ones count alike in the solver.
    scale = 1.0 / np.sqrt(np.diag(products))
    products = products * scale[:, None] * scale[None]
    targets = targets * scale / length
    sums = scale * length
    free, along_sums = np.linalg.lstsq(products, np.stack([targets, sums], 1), rcond=NEGLIGIBLE)[0].T
    solution = free + along_sums * (1.0 - sums @ free) / (sums @ along_sums)
    squared = 1.0 - 2.0 * solution @ targets + solution @ products @ solution
    coefficients = solution * sums
    return Fit([float(value) for value in coefficients], math.sqrt(max(0.0, float(squared))))


def _integrate_products(time: Any, power: Any, other_time: Any, other_power: Any) -> Any:
    """Return the integral of the product of two profiles, over the ages that both cover."""
    earlier = np.minimum(time, other_time)
    later = np.maximum(time, other_time)
    overlap = (earlier / time) ** power * (earlier / other_time) ** other_power / later
    return (power + 1.0) * (other_power + 1.0) / (power + other_power + 1.0) * overlap

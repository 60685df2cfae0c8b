"""Tests of the penalties: values and gradients to the weights against slow float64 formulas, and the suite.

The analytic critic is D(x) = v . tanh(W x), whose image gradient is W^T (v * (1 - tanh(W x)^2)): the formulas use NumPy
alone, and their gradients to the weights are central differences.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from helpers.variants import train_once
from torch import Tensor

from pggan_kit import Scores
from pggan_kit.testing import PenaltySuite
from pggan_plugins.penalties import R1, R2, Drift, GradientPenalty

RNG = np.random.default_rng(0)
SHAPE = (5, 2, 3, 2)
REAL = RNG.normal(size=SHAPE)
FAKE = RNG.normal(size=SHAPE)
MIX = RNG.random(5)
W = RNG.normal(size=(4, 12)) / 3
V = RNG.normal(size=4)

Formula = Callable[[np.ndarray, np.ndarray], float]


def compute_score(x: np.ndarray, w: np.ndarray, v: np.ndarray) -> float:
    return float(v @ np.tanh(w @ x.ravel()))


def compute_image_gradient(x: np.ndarray, w: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.asarray(w.T @ (v * (1 - np.tanh(w @ x.ravel()) ** 2)))


def make_gradient_penalty(target: float) -> Formula:
    def formula(w: np.ndarray, v: np.ndarray) -> float:
        total = 0.0
        for real, fake, mix in zip(REAL, FAKE, MIX, strict=True):
            norm = np.sqrt((compute_image_gradient((1 - mix) * real + mix * fake, w, v) ** 2).sum())
            total += (norm - target) ** 2 / target**2
        return total / len(REAL)

    return formula


def make_zero_centred_penalty(images: np.ndarray) -> Formula:
    return lambda w, v: sum((compute_image_gradient(x, w, v) ** 2).sum() for x in images) / len(images) / 2


def drift(w: np.ndarray, v: np.ndarray) -> float:
    return sum(compute_score(x, w, v) ** 2 for x in REAL) / len(REAL)


CASES = {
    "gradient penalty": (GradientPenalty(), make_gradient_penalty(1.0)),
    "gradient penalty, target 750": (GradientPenalty(target=750.0), make_gradient_penalty(750.0)),
    "R1": (R1(), make_zero_centred_penalty(REAL)),
    "R2": (R2(), make_zero_centred_penalty(FAKE)),
    "drift": (Drift(), drift),
}


def differentiate(formula: Formula) -> tuple[np.ndarray, np.ndarray]:
    """Return central differences to both weights."""
    results = []
    for which, weight in enumerate((W, V)):
        slope = np.zeros_like(weight)
        for index in np.ndindex(weight.shape):
            ends = []
            for step in (1e-5, -1e-5):
                moved = [W.copy(), V.copy()]
                moved[which][index] += step
                ends.append(formula(*moved))
            slope[index] = (ends[0] - ends[1]) / 2e-5
        results.append(slope)
    return results[0], results[1]


@pytest.mark.parametrize("case", CASES)
def test_value_and_gradient_to_the_weights(case: str) -> None:
    penalty, formula = CASES[case]
    w, v = (torch.from_numpy(weight).clone().requires_grad_(True) for weight in (W, V))

    def critic(images: Tensor) -> Scores:
        return Scores((images.flatten(1) @ w.T).tanh() @ v)

    # The value, and its gradients by torch and by differences.
    real, fake, mix = (torch.from_numpy(array) for array in (REAL, FAKE, MIX))
    value = penalty(critic, real, fake, critic(real), critic(fake), mix)
    assert value.dim() == 0
    assert float(value) == pytest.approx(formula(W, V), rel=1e-10)
    gradients = torch.autograd.grad(value, (w, v))
    for gradient, wanted in zip(gradients, differentiate(formula), strict=True):
        np.testing.assert_allclose(gradient.numpy(), wanted, rtol=1e-5, atol=1e-7)


def test_a_sum_over_the_batch_does_not_mix_samples() -> None:
    """Each sample's penalty is its own: the mean over a batch is the mean of batches of one."""
    w = torch.from_numpy(W)
    v = torch.from_numpy(V)

    def critic(images: Tensor) -> Scores:
        return Scores((images.flatten(1) @ w.T).tanh() @ v)

    real, fake, mix = (torch.from_numpy(array) for array in (REAL, FAKE, MIX))
    for penalty, _ in CASES.values():
        alone = [
            penalty(critic, real[i : i + 1], fake[i : i + 1], critic(real[i : i + 1]), critic(fake), mix[i : i + 1])
            for i in range(5)
        ]
        together = penalty(critic, real, fake, critic(real), critic(fake), mix)
        assert float(together) == pytest.approx(float(torch.stack(alone).mean()), rel=1e-12)


def test_norms_do_not_overflow_in_half_precision() -> None:
    real = torch.ones(2, 3, 8, 8, dtype=torch.float16)

    def critic(images: Tensor) -> Scores:
        return Scores(100.0 * images.sum((1, 2, 3), dtype=torch.float32))

    value = R1()(critic, real, real, critic(real), critic(real), torch.zeros(2))
    assert float(value) == pytest.approx(100.0**2 * 3 * 64 / 2)


class TestGradientPenalty(PenaltySuite):
    bad_arguments = ({"weight": -1.0}, {"weight": float("nan")}, {"target": 0.0}, {"every": 0}, {"every": 1.5})

    def make(self) -> GradientPenalty:
        return GradientPenalty()


@train_once
class TestR1(PenaltySuite):
    bad_arguments = ({"weight": -1.0}, {"every": 0}, {"every": 1.5})

    def make(self) -> R1:
        return R1()


@train_once
class TestR2(PenaltySuite):
    bad_arguments = ({"weight": -1.0}, {"every": 0}, {"every": 1.5})

    def make(self) -> R2:
        return R2()


@train_once
class TestDrift(PenaltySuite):
    bad_arguments = ({"weight": -1.0}, {"every": 0}, {"every": 1.5})

    def make(self) -> Drift:
        return Drift()

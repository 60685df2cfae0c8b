"""Tests of the losses against float64 formulas, and the conformance suite."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.variants import train_once

from pggan_kit import Scores
from pggan_kit.testing import LossSuite
from pggan_plugins import losses
from pggan_plugins.penalties import Drift, GradientPenalty

REAL = np.array([-3.0, -0.9, 0.1, 1.7, 40.0])
FAKE = np.array([2.5, -1.2, 0.4, -0.3, -30.0])


def softplus(x: np.ndarray) -> np.ndarray:
    return np.logaddexp(0.0, x)


def half_mean_square(x: np.ndarray, target: float) -> float:
    return float(((x - target) ** 2).mean() / 2)


FORMULAS = {
    "WGANGP": (FAKE.mean() - REAL.mean(), -FAKE.mean()),
    "Hinge": (np.maximum(0, 1 - REAL).mean() + np.maximum(0, 1 + FAKE).mean(), -FAKE.mean()),
    # -log(sigmoid(real)) - log(1 - sigmoid(fake)), and -log(sigmoid(fake)) for G.
    "NonSaturating": (softplus(-REAL).mean() + softplus(FAKE).mean(), softplus(-FAKE).mean()),
    "BinaryCrossEntropy": ((softplus(-REAL).mean() + softplus(FAKE).mean()) / 2, softplus(-FAKE).mean()),
    "LeastSquares": (half_mean_square(REAL, 1.0) + half_mean_square(FAKE, 0.0), half_mean_square(FAKE, 1.0)),
    "Relativistic": (softplus(FAKE - REAL).mean(), softplus(REAL - FAKE).mean()),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_values_against_formulas(name: str) -> None:
    loss = losses.WGANGP([]) if name == "WGANGP" else getattr(losses, name)()
    real = Scores(torch.from_numpy(REAL))
    fake = Scores(torch.from_numpy(FAKE))
    (discriminator_term,) = loss.discriminator(real, fake).values()
    (generator_term,) = loss.generator(fake, real if loss.needs_real else None).values()
    wanted = FORMULAS[name]
    assert float(discriminator_term) == pytest.approx(wanted[0], rel=1e-12)
    assert float(generator_term) == pytest.approx(wanted[1], rel=1e-12)


def test_hinge_has_no_gradient_beyond_the_margin() -> None:
    real = torch.tensor([1.5, 0.5]).requires_grad_(True)
    fake = torch.tensor([-1.5, -0.5]).requires_grad_(True)
    (term,) = losses.Hinge().discriminator(Scores(real), Scores(fake)).values()
    term.backward()
    assert real.grad is not None and fake.grad is not None
    assert real.grad.tolist() == [0.0, -0.5]
    assert fake.grad.tolist() == [0.0, 0.5]


def test_generators_gradient_does_not_vanish_where_the_discriminator_wins() -> None:
    fake = torch.full((1,), -20.0, requires_grad=True)
    (term,) = losses.NonSaturating().generator(Scores(fake), None).values()
    term.backward()
    assert fake.grad is not None
    assert float(fake.grad) == pytest.approx(-1.0, abs=1e-6)


class TestWGANGP(LossSuite):
    def make(self) -> losses.WGANGP:
        return losses.WGANGP([GradientPenalty(), Drift()])


@train_once
class TestHinge(LossSuite):
    def make(self) -> losses.Hinge:
        return losses.Hinge()


@train_once
class TestNonSaturating(LossSuite):
    def make(self) -> losses.NonSaturating:
        return losses.NonSaturating()


@train_once
class TestBinaryCrossEntropy(LossSuite):
    def make(self) -> losses.BinaryCrossEntropy:
        return losses.BinaryCrossEntropy()


@train_once
class TestLeastSquares(LossSuite):
    bad_arguments = ({"real_target": 0.0}, {"fake_target": float("nan")})

    def make(self) -> losses.LeastSquares:
        return losses.LeastSquares()


class TestRelativistic(LossSuite):
    def make(self) -> losses.Relativistic:
        return losses.Relativistic()

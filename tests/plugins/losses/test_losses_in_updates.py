"""Tests of losses and penalties in an update: scores of reals for G, R1 and R2 together, every wrong argument."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pggan_kit import DuePenalty, Scores
from pggan_plugins.losses import LeastSquares, Relativistic
from pggan_plugins.penalties import R1, R2
from pggan_plugins.updates.alternating import discriminator_terms, generator_terms

A = 0.7
B = -1.3
LATENTS = torch.tensor([[0.5], [-1.0], [2.0], [0.1]], dtype=torch.float64)
REALS = torch.tensor([[1.0], [0.2], [-0.6], [3.0]], dtype=torch.float64)


class Line(nn.Module):
    """A network that is a line: G(z) = a z, or D(x) = b x."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(slope, dtype=torch.float64))

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.slope * x


def make_players() -> tuple[Line, Line, Callable[..., Scores]]:
    generator = Line(A)
    critic = Line(B)
    return generator, critic, lambda x, labels=None: Scores(critic(x).flatten())


def make_batch(**more: Tensor | None) -> dict[str, Tensor | None]:
    return {"latents": LATENTS, "real": REALS, "labels": None, "mix": torch.rand(4), **more}


def test_generator_is_scored_against_reals_and_learns_from_its_fakes_alone() -> None:
    """d/da of mean softplus(b x - b a z) is mean sigmoid(b x - b a z) * (-b z)."""
    generator, critic, D = make_players()
    critic.requires_grad_(False)
    seen: list[Tensor] = []

    def record_scores(x: Tensor, labels: Tensor | None = None) -> Scores:
        scores = D(x)
        seen.append(scores.score)
        return scores

    terms, _ = generator_terms(generator, record_scores, make_batch(), Relativistic())
    (term,) = terms.values()
    term.backward()
    z = LATENTS.flatten()
    x = REALS.flatten()
    wanted = (torch.sigmoid(B * x - B * A * z) * (-B * z)).mean()
    torch.testing.assert_close(generator.slope.grad, wanted)
    assert critic.slope.grad is None
    assert [score.requires_grad for score in seen] == [True, False]  # fakes, then reals


def test_generator_gets_no_gradient_through_reals_even_of_a_moving_discriminator() -> None:
    """Were the reals' scores differentiated too, D's weight would get a second term."""
    generator, critic, D = make_players()
    terms, _ = generator_terms(generator, D, make_batch(), Relativistic())
    (term,) = terms.values()
    (grad,) = torch.autograd.grad(term, critic.slope)
    z = LATENTS.flatten()
    x = REALS.flatten()
    torch.testing.assert_close(grad, (torch.sigmoid(B * x - B * A * z) * (-A * z)).mean())


def test_pairs_are_row_by_row() -> None:
    real = torch.tensor([3.0, -1.0])
    fake = torch.tensor([1.0, 2.0])
    (term,) = Relativistic().discriminator(Scores(real), Scores(fake)).values()
    wanted = (torch.log1p(torch.exp(torch.tensor([-2.0, 3.0])))).mean()
    torch.testing.assert_close(term, wanted)


def test_least_squares_targets() -> None:
    """a, b and c of the paper, each in its own place."""
    loss = LeastSquares(fake_target=-2.0, real_target=3.0, generator_target=0.5)
    real = torch.tensor([1.0, 2.0])
    fake = torch.tensor([0.0, 4.0])
    (term,) = loss.discriminator(Scores(real), Scores(fake)).values()
    assert term.item() == pytest.approx(((4 + 1) / 2 + (4 + 36) / 2) / 2)
    (term,) = loss.generator(Scores(fake), None).values()
    assert term.item() == pytest.approx((0.25 + 12.25) / 2 / 2)


def test_r1_and_r2_are_both_added_in_an_update() -> None:
    """For D(x) = b x both gradients are b, so each penalty is b^2 / 2 and counts with its weight."""
    generator, critic, _ = make_players()

    def D(x: Tensor, labels: Tensor | None = None) -> Scores:
        return Scores(critic(x).flatten(1).sum(1))

    images = {"real": REALS.view(4, 1, 1, 1), "latents": LATENTS.view(4, 1, 1, 1)}
    penalties = [R1(weight=2.0), R2(weight=3.0)]

    due = [DuePenalty(penalty, number, 1, moves=False) for number, penalty in enumerate(penalties)]
    terms, _ = discriminator_terms(generator, D, make_batch(**images), Relativistic(penalties), due)
    assert terms["R1"].item() == pytest.approx(2.0 * B**2 / 2)
    assert terms["R2"].item() == pytest.approx(3.0 * B**2 / 2)
    torch.stack([terms["R1"], terms["R2"]]).sum().backward()
    assert critic.slope.grad is not None and critic.slope.grad.item() == pytest.approx(5.0 * B)
    assert generator.slope.grad is None


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (LeastSquares, {"fake_target": float("nan")}),
        (LeastSquares, {"real_target": float("inf")}),
        (LeastSquares, {"generator_target": float("-inf")}),
        (LeastSquares, {"real_target": 0.0}),
        (R2, {"weight": -0.1}),
        (R2, {"weight": float("nan")}),
        (R2, {"every": 0}),
    ],
)
def test_errors_name_the_wrong_argument(kind: Any, arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(arguments))} "):
        kind(**arguments)


def test_trains_as_r3gan_does(train: Callable[..., Any]) -> None:
    run = train(
        "train.loss = @losses.Relativistic()",
        "losses.Relativistic.penalties = [@penalties.R1(), @penalties.R2()]",
    )
    last = run.files.stats()[-1]
    assert {"Loss/discriminator/R1", "Loss/discriminator/R2", "Loss/generator/relativistic"} <= last.keys()

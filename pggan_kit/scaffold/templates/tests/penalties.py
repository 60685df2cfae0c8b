"""Test `penalties.Mine` with the conformance suite of penalties; add tests of what is particular to yours."""

import torch
from mine import Mine

from pggan_kit import Scores
from pggan_kit.testing import PenaltySuite


class TestMine(PenaltySuite):
    bad_arguments = ({"weight": -1.0}, {"every": 0})

    def make(self) -> Mine:
        return Mine()


def test_a_linear_critic_has_the_same_gradient_everywhere() -> None:
    def critic(images: torch.Tensor) -> Scores:
        return Scores(3.0 * images.sum((1, 2, 3)))

    images = torch.zeros(2, 1, 2, 2)
    scores = critic(images)
    penalty = Mine()(critic, images, images + 1, scores, scores, torch.rand(2))
    assert penalty == 4 * 3.0**2

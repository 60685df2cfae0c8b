"""Test `generator_penalties.Mine` with the conformance suite; add tests of what is particular to yours."""

import torch
from mine import Mine

from pggan_kit import Fakes
from pggan_kit.testing import GeneratorPenaltySuite


class TestMine(GeneratorPenaltySuite):
    bad_arguments = ({"weight": -1.0}, {"every": 0})

    def make(self) -> Mine:
        return Mine()


def test_a_linear_generator_has_the_same_gradient_everywhere() -> None:
    latents = torch.randn(3, 1, requires_grad=True)
    images = 3.0 * latents.view(3, 1, 1, 1)
    noise = torch.ones(3, 1, 1, 1)
    fakes = Fakes(images, latents, None, None, (), (), noise, None, lambda z, labels: 3.0 * z.view(-1, 1, 1, 1))
    assert Mine()(fakes) == 3.0**2

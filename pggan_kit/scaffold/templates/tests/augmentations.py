"""Test `augmentations.Mine` with the conformance suite of augmentations; add tests of what is particular to yours."""

import torch
from mine import Mine

from pggan_kit.testing import AugmentationSuite


class TestMine(AugmentationSuite):
    bad_arguments = ({"p": -0.1}, {"p": 1.5})

    def make(self) -> Mine:
        return Mine()


def test_probabilities_0_and_1_turn_none_and_all() -> None:
    images = torch.rand(3, 1, 4, 4)
    assert torch.equal(Mine(p=0.0)(images), images)
    assert torch.equal(Mine(p=1.0)(images), images.flip(2))

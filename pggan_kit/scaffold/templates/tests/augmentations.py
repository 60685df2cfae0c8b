"""The conformance suite of augmentations on `augmentations.Mine`. Add what is particular to yours."""

import torch
from mine import Mine

from pggan_kit.testing import AugmentationSuite


class TestMine(AugmentationSuite):
    bad_arguments = ({"p": -0.1}, {"p": 1.5})

    def make(self) -> Mine:
        return Mine()


def test_all_or_none() -> None:
    images = torch.rand(3, 1, 4, 4)
    assert torch.equal(Mine(p=0.0)(images), images)
    assert torch.equal(Mine(p=1.0)(images), images.flip(2))

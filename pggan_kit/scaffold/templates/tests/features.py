"""The conformance suite of feature extractors on `features.Mine`. Add what is particular to yours."""

import torch
from mine import Mine

from pggan_kit.testing import FeatureExtractorSuite


class TestMine(FeatureExtractorSuite):
    bad_arguments = ({"cells": 0}, {"cells": 17})

    def make(self) -> Mine:
        return Mine()


def test_a_flat_image_is_flat() -> None:
    assert torch.equal(Mine(cells=2)(torch.full((1, 3, 8, 8), 0.25)), torch.full((1, 4), 0.25))

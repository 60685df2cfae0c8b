"""Test `features.Mine` with the conformance suite of feature extractors; add tests of what is particular to yours."""

import torch
from mine import Mine

from pggan_kit.testing import FeatureExtractorSuite


class TestMine(FeatureExtractorSuite):
    bad_arguments = ({"cells": 0}, {"cells": 17})

    def make(self) -> Mine:
        return Mine()


def test_a_uniform_image_has_uniform_features() -> None:
    images = torch.full((1, 3, 8, 8), 0.25)
    assert torch.equal(Mine(cells=2)(images), torch.full((1, 4), 0.25))

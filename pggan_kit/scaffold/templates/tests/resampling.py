"""Test `resampling.Mine` with the conformance suite of resampling pairs; add tests of what is particular to yours."""

import torch
from mine import Mine

from pggan_kit.testing import ResamplingSuite


class TestMine(ResamplingSuite):
    def make(self) -> Mine:
        return Mine()


def test_downsampling_keeps_the_largest_pixels() -> None:
    images = torch.arange(16.0).view(1, 1, 4, 4)
    assert Mine().down(1, 2)(images).flatten().tolist() == [5.0, 7.0, 13.0, 15.0]

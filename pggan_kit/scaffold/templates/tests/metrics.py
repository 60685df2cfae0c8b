"""Test `metrics.Mine` with the conformance suite of metrics; add tests of what is particular to yours."""

import pytest
import torch
from mine import Mine

from pggan_kit.testing import MetricSuite


class TestMine(MetricSuite):
    bad_arguments = ({"scale": 0.0},)

    def make(self) -> Mine:
        return Mine()


def test_gray_images_differ_from_black_ones_in_brightness_alone() -> None:
    metric = Mine(scale=10.0)
    black = metric.describe(torch.full((4, 1, 8, 8), -1.0))
    gray = metric.describe(torch.zeros(4, 1, 8, 8))
    assert black is not None and gray is not None
    assert metric.compare(black, gray) == pytest.approx({"brightness": 10.0, "contrast": 0.0})

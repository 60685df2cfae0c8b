"""The conformance suite of metrics on `metrics.Mine`. Add what is particular to yours."""

import pytest
import torch
from mine import Mine

from pggan_kit.testing import MetricSuite


class TestMine(MetricSuite):
    bad_arguments = ({"scale": 0.0},)

    def make(self) -> Mine:
        return Mine()


def test_gray_against_black() -> None:
    metric = Mine(scale=10.0)
    black, gray = (metric.describe(torch.full((4, 1, 8, 8), value)) for value in (-1.0, 0.0))
    assert black is not None and gray is not None
    assert metric.compare(black, gray) == pytest.approx({"brightness": 10.0, "contrast": 0.0})

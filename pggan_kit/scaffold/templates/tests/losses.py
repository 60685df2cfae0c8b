"""Test `losses.Mine` with the conformance suite of losses; add tests of what is particular to yours."""

import torch
from mine import Mine

from pggan_kit import Scores
from pggan_kit.testing import LossSuite


class TestMine(LossSuite):
    bad_arguments = ({"margin": 0.0}, {"margin": -1.0})

    def make(self) -> Mine:
        return Mine()


def test_reals_beyond_the_margin_add_nothing() -> None:
    loss = Mine(margin=2.0)
    real = Scores(torch.tensor([2.0, 5.0]))
    fake = Scores(torch.tensor([0.0, -1.0]))
    terms = loss.discriminator(real, fake)
    assert terms["real"] == 0.0
    assert terms["fake"] == (2.0 + 1.0) / 2

"""Test `updates.Mine` with the conformance suite of updates; add tests of what is particular to yours."""

import pytest
from mine import Mine

from pggan_kit.testing import UpdateSuite


class TestMine(UpdateSuite):
    bad_arguments = ({"generator_updates": 0},)

    def make(self) -> Mine:
        return Mine()


@pytest.mark.parametrize("count", [1, 3])
def test_the_generator_moves_as_often_as_generator_updates_says(count: int) -> None:
    class Suite(UpdateSuite):
        def make(self) -> Mine:
            return Mine(generator_updates=count)

    suite = Suite()
    context, _ = suite.step(suite.state())
    assert context.moved == ["discriminator", *["generator"] * count]

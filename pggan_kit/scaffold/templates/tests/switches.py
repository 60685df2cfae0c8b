"""Test `switches.Mine` with the conformance suite of switches; add tests of what is particular to yours."""

from mine import Mine

from pggan_kit.testing import SwitchSuite


class TestMine(SwitchSuite):
    bad_arguments = ({"power": 0.0},)

    def make(self) -> Mine:
        return Mine()


def test_alpha_half_way_is_the_power_of_one_half() -> None:
    assert Mine(power=3.0).fade_alpha(progress=0.5) == 0.125

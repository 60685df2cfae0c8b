"""The conformance suite of switches on `switches.Mine`. Add what is particular to yours."""

from mine import Mine

from pggan_kit.testing import SwitchSuite


class TestMine(SwitchSuite):
    bad_arguments = ({"power": 0.0},)

    def make(self) -> Mine:
        return Mine()


def test_half_way() -> None:
    assert Mine(power=3.0).fade_alpha(progress=0.5) == 0.125

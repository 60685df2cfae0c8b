"""Test `curves.Mine` with the conformance suite of curves; add tests of what is particular to yours."""

from mine import Mine

from pggan_kit.testing import CurveSuite


class TestMine(CurveSuite):
    bad_arguments = ({"value": 0.0}, {"size": 1.0})

    def make(self) -> Mine:
        return Mine()


def test_the_wave_keeps_within_its_size() -> None:
    curve = Mine(value=2.0, size=0.5)
    values = [curve.at(position) for position in TestMine().list_positions()]
    assert 1.0 <= min(values) < max(values) <= 3.0

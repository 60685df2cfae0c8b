"""Test `growth.Mine` with the conformance suite of growth policies; add tests of what is particular to yours."""

from mine import Mine

from pggan_kit import Piece
from pggan_kit.testing import GrowthPolicySuite


class TestMine(GrowthPolicySuite):
    bad_arguments = ({"decay": -0.5}, {"moments": "forget"})

    def make(self) -> Mine:
        return Mine()


def test_a_piece_slows_down_with_each_stage() -> None:
    places = list(TestMine().list_places())
    stem = Piece("generator", "stem", birth=places[0].stage)
    assert Mine(decay=0.5).factor(stem, places[0]) == 1.0
    assert Mine(decay=0.5).factor(stem, places[-1]) == 0.25  # two stages later

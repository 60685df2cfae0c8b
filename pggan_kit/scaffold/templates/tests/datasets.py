"""The conformance suite of data sets on `datasets.Mine`. Add what is particular to yours."""

from mine import Mine

from pggan_kit.testing import DatasetSuite


class TestMine(DatasetSuite):
    bad_arguments = ({"count": 0}, {"size": 7})

    def make(self) -> Mine:
        return Mine(count=20)


def test_the_large_ones_are_larger() -> None:
    discs = Mine()
    areas = [(discs.image(i) > 0).sum() for i in range(20)]
    assert max(areas[0::2]) < min(areas[1::2])

"""Test `datasets.Mine` with the conformance suite of data sets; add tests of what is particular to yours."""

from mine import Mine

from pggan_kit.testing import DatasetSuite


class TestMine(DatasetSuite):
    bad_arguments = ({"count": 0}, {"size": 7})

    def make(self) -> Mine:
        return Mine(count=20)

    def make_others(self) -> list[Mine]:
        return [Mine(count=21), Mine(count=20, size=32)]


def test_discs_of_class_1_are_larger() -> None:
    discs = Mine()
    areas = [(discs.image(i) > 0).sum() for i in range(20)]
    small = areas[0::2]
    large = areas[1::2]
    assert max(small) < min(large)

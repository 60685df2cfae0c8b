"""Test `architectures.Mine` with the conformance suite of architectures; add tests of what is particular to yours."""

from mine import Mine

from pggan_kit.testing import ArchitectureSuite, make_stages


class TestMine(ArchitectureSuite):
    bad_arguments = ({"channels": 0},)

    def make(self) -> Mine:
        return Mine(channels=6)


def test_a_block_has_the_weights_of_one_convolution() -> None:
    previous, stage = make_stages((4, 8))
    block = Mine(channels=6).generator_block(previous, stage, TestMine().resampling())
    assert sum(param.numel() for param in block.parameters()) == 6 * 6 * 3 * 3 + 6

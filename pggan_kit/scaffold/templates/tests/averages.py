"""Test `averages.Mine` with the conformance suite of averages; add tests of what is particular to yours."""

from mine import Mine

from pggan_kit.testing import AverageSuite


class TestMine(AverageSuite):
    bad_arguments = ({"share": 0.0}, {"longest": 0})

    def make(self) -> Mine:
        return Mine()


def test_the_memory_is_a_share_of_the_age_up_to_the_longest() -> None:
    average = Mine(share=0.5, longest=1000)
    ((position, _, _), *_) = TestMine().iterate_questions()
    assert average.compute_shares(position, age=0, images=32) == (1.0,)
    assert average.compute_shares(position, age=640, images=32) == (0.1,)
    assert average.compute_shares(position, age=10_000, images=32) == (0.032,)

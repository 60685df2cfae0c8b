"""Test `optimizers.Mine` with the conformance suite of optimizers; add tests of what is particular to yours."""

import torch
from mine import Mine

from pggan_kit.testing import OptimizerSuite, make_stages


class TestMine(OptimizerSuite):
    bad_arguments = ({"lr": 0.0}, {"alpha": 1.0})

    def make(self) -> Mine:
        return Mine(lr=0.01)


def test_the_first_step_divides_the_learning_rate_by_the_root_of_one_minus_alpha() -> None:
    param = torch.nn.Parameter(torch.zeros(1))
    optimizer = Mine(lr=0.01, alpha=0.75).build([param], make_stages()[0])
    param.grad = torch.tensor([3.0])
    optimizer.step()
    torch.testing.assert_close(param.detach(), torch.tensor([-0.02]))  # 0.01 / sqrt(1 - 0.75)

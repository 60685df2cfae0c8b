"""The learning rate of a group: the optimizer's rate times the growth policy's factor, whichever is set first."""

from __future__ import annotations

from pggan_kit.growth.learning_rates import set_learning_factor, set_rate


def test_the_rate_is_multiplied_by_the_factor_in_either_order() -> None:
    group = {"lr": 0.5}
    set_learning_factor(group, 0.25)
    assert group["lr"] == 0.125
    set_rate(group, 2.0)
    assert group["lr"] == 0.5
    set_learning_factor(group, 1.0)
    assert group["lr"] == 2.0

    plain = {"lr": 0.5}
    set_rate(plain, 3.0)
    assert plain["lr"] == 3.0

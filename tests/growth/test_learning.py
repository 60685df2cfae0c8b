"""How fast pieces learn: what a policy may answer, what optimizers forget, and how their groups are split."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from pggan_kit.components import Piece
from pggan_kit.errors import ConfigError, TrainingError
from pggan_kit.growth.learning import (
    SplitOptimizer,
    acts_at_base,
    ask_factors,
    list_forgotten,
    list_planned_parts,
    name_pieces,
)
from pggan_kit.growth.learning_rates import set_rate
from pggan_kit.runs.state import TrainState
from pggan_kit.schedule import Position, ScheduleSettings
from pggan_kit.testing.support import are_equal
from pggan_kit.testing.tiny_runs import make_tiny_experiment
from pggan_plugins.growth import Everything, FreezeD, FreezeOld, SlowOld, WarmUpNew
from pggan_plugins.updates import Alternating

UPDATE = Alternating()
SCHEDULE = ScheduleSettings((4, 8, 16), fade_images=40, stable_images=60, batch_size=4).resolve(16, 1, 0)


class Answers:
    """A policy that always gives the same answer for the generator, and 1 for the discriminator."""

    moments = "keep"

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def factor(self, piece: Piece, position: Position) -> Any:
        return self.answer if piece.net == "generator" else 1


@pytest.mark.parametrize("answer", [-0.5, math.nan, math.inf, True, None, torch.tensor(1.0)])
def test_a_factor_is_a_finite_number_of_at_least_0(answer: Any) -> None:
    position = SCHEDULE.at(48, [0])
    with pytest.raises(TrainingError, match=r"gave .* as the factor of the generator's stem of 4x4 at images 48; it"):
        ask_factors(Answers(answer), name_pieces(position.stage), position)


@pytest.mark.parametrize("learning", [{8: 3}, None])
def test_a_setting_without_a_value_for_a_stage_is_named(learning: Any) -> None:
    """As an object in Python may have it: gin checks its type, and the schedule is not known before."""
    with pytest.raises(ConfigError, match=r"^train\.growth: learning (has no value for height 4|must have a value)"):
        list_planned_parts(FreezeD(learning), UPDATE, SCHEDULE, SCHEDULE.stages[0])


def test_something_of_each_network_learns() -> None:
    position = SCHEDULE.at(148, [0, 100])
    with pytest.raises(TrainingError, match=r"freezes the whole generator at images 148 \(stage 8x8, stable\): leave"):
        ask_factors(Answers(0), name_pieces(position.stage), position)


def make_state(**chosen: Any) -> TrainState:
    """Return networks that have just grown to the last of three stages, with their old paths."""
    experiment = make_tiny_experiment({"schedule": ScheduleSettings((4, 8, 16), 40, 60, 4), **chosen})
    state = TrainState(experiment, SCHEDULE, torch.device("cpu"))
    for _ in range(2):
        state.end_fade()
        state.images += 100
        state.grow({"generator": True, "discriminator": True})
    state.renew_optimizers()
    return state


def test_every_weight_belongs_to_one_piece() -> None:
    state = make_state()
    for net in (state.generator, state.discriminator):
        held = [param for built in net.pieces() for param in built.weights]
        assert len(held) == len(set(held)) and set(held) == set(net.weights())
    pieces = [str(built.piece) for built in state.discriminator.pieces()]
    assert pieces == [
        "discriminator's head of 4x4",
        "discriminator's block of 8x8",
        "discriminator's block of 16x16",
        "discriminator's from_image of 16x16",
        "discriminator's bridge of 16x16",
    ]
    named = {piece for piece in name_pieces(state.stage) if piece.net == "generator"}
    assert named == {built.piece for built in state.generator.pieces() if built.piece.name != "bridge"}


FORGOTTEN = {
    ("keep", None): set(),
    ("keep", ("generator",)): set(),
    ("forget_at_stages", None): {"generator 4", "generator 8", "generator 16", "discriminator 4", "discriminator 16"},
    ("forget_at_stages", ("generator",)): set(),
    ("forget_at_phases", ("generator",)): {"generator 4", "discriminator 4"},
    ("forget_at_phases", ()): set(),
}
"""Some of the pieces that are forgotten, by net and size; none of them where the set is empty."""


@pytest.mark.parametrize(("moments", "faded"), FORGOTTEN)
def test_what_is_forgotten(moments: str, faded: tuple[str, ...] | None) -> None:
    forgotten = list_forgotten_pieces(moments, faded)
    assert FORGOTTEN[moments, faded] <= forgotten and bool(forgotten) == bool(FORGOTTEN[moments, faded])


def list_forgotten_pieces(moments: str, faded: tuple[str, ...] | None) -> set[str]:
    state = make_state()
    nets = [state.generator, state.discriminator]
    forgotten = list_forgotten(Everything(moments), state.stage, nets, faded)
    names = set()
    for net in nets:
        for built in net.pieces():
            if built.weights and set(built.weights) <= forgotten:
                names |= {f"{net.kind} {built.piece.birth.height}", f"{net.kind} {built.piece.name}"}
    return names


def test_only_what_was_touched_is_forgotten() -> None:
    """The layers around the image and the block of the stage before, at growth and at the end of a network's fade."""
    of_generator = {"generator to_image", "generator bridge", "generator 16", "generator block", "generator 8"}
    of_discriminator = {name.replace("generator", "discriminator").replace("to_im", "from_im") for name in of_generator}
    assert list_forgotten_pieces("forget_touched", None) == of_generator | of_discriminator
    assert list_forgotten_pieces("forget_touched", ("generator",)) == of_generator
    assert list_forgotten_pieces("forget_touched", ()) == set()


def test_a_discriminator_that_does_not_grow_has_nothing_that_was_touched() -> None:
    """It stays at full size while G grows: its layers work as before, and keep their moments."""
    schedule = ScheduleSettings((4, 8), 8, 8, 4, discriminator_height=8)
    experiment = make_tiny_experiment({"schedule": schedule})
    state = TrainState(experiment, schedule.resolve(16, 1, 0), torch.device("cpu"))
    state.images = 8
    state.grow({"generator": True, "discriminator": False})
    forgotten = list_forgotten(Everything("forget_touched"), state.stage, [state.generator, state.discriminator])
    assert forgotten & set(state.generator.weights())
    assert not forgotten & set(state.discriminator.weights())
    everything = list_forgotten(Everything("forget_at_stages"), state.stage, [state.discriminator])
    assert everything == set(state.discriminator.weights())


@pytest.mark.parametrize("heights", [16, {4: 8, 8: 16}, {4: 4, 16: 8}])
def test_pieces_are_named_as_they_are_built_where_the_discriminator_grows_at_other_times(heights: Any) -> None:
    schedule = ScheduleSettings((4, 8, 16), 8, 8, 4, discriminator_height=heights)
    experiment = make_tiny_experiment({"schedule": schedule})
    state = TrainState(experiment, schedule.resolve(16, 1, 0), torch.device("cpu"))
    for _ in range(2):
        state.images += 16
        state.grow({"generator": False, "discriminator": False})
        built = [*state.generator.pieces(), *state.discriminator.pieces()]
        assert set(name_pieces(state.stage)) == {each.piece for each in built}


def make_parameters(count: int) -> list[nn.Parameter]:
    return [nn.Parameter(torch.full((2,), float(index + 1))) for index in range(count)]


def take_steps(optimizer: torch.optim.Optimizer, params: list[nn.Parameter], count: int = 1) -> None:
    for _ in range(count):
        for param in params:
            param.grad = param.detach() / 2
        optimizer.step()


def test_an_optimizer_is_split_and_joined_again() -> None:
    """Its settings and the state of what learns stay; groups that an author made stay apart."""
    params = make_parameters(5)
    groups = [{"params": params[:3], "lr": 0.5}, {"params": params[3:], "lr": 0.25, "weight_decay": 0.1}]
    optimizer = torch.optim.SGD(groups, momentum=0.9)
    take_steps(optimizer, params)
    whole = optimizer.state_dict()
    split = SplitOptimizer(optimizer, "mine")
    split.split({})
    assert len(optimizer.param_groups) == 2, "nothing to split"

    split.split({params[0]: 0.5, params[1]: 0.0, params[4]: 0.5})
    number = {param: index for index, param in enumerate(params)}
    held = [[number[param] for param in group["params"]] for group in optimizer.param_groups]
    assert held == [[0], [2], [3], [4]]
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.5, 0.25, 0.125]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0, 0, 0.1, 0.1]
    assert params[1] not in optimizer.state and params[0] in optimizer.state

    # The saved state is that of the groups as they were built, but for what is frozen.
    saved = split.save()
    del whole["state"][1]
    assert are_equal(saved, whole)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.5, 0.25, 0.125]

    # A rate that moves meanwhile moves for all parts.
    for group in optimizer.param_groups[:2]:
        set_rate(group, 1.0)
    split.split({param: 0.0 for param in params[:3]})
    assert [len(group["params"]) for group in optimizer.param_groups] == [0, 2], "empty, so that its settings stay"
    split.split({})
    assert [group["lr"] for group in optimizer.param_groups] == [1.0, 0.25]
    assert [group["params"] for group in optimizer.param_groups] == [params[:3], params[3:]]


@pytest.mark.parametrize("make", [torch.optim.Adam, torch.optim.RMSprop, torch.optim.Adagrad, torch.optim.AdamW])
def test_any_optimizer_leaves_frozen_parameters_and_slows_others(make: Any) -> None:
    """As if the others alone had been given to it, with their own rates; a thawed one begins without state."""
    params = make_parameters(3)
    optimizer = make(params, lr=0.1)
    split = SplitOptimizer(optimizer, "mine")
    split.split({params[0]: 0.0, params[1]: 0.5})
    take_steps(optimizer, params, 3)

    twins = make_parameters(3)
    alone = make([{"params": twins[1:2], "lr": 0.05}, {"params": twins[2:], "lr": 0.1}])
    take_steps(alone, twins, 3)
    assert all(torch.equal(param, twin) for param, twin in zip(params, twins, strict=True))
    assert params[0] not in optimizer.state

    split.split({})
    fresh = make(twins[:1], lr=0.1)
    if isinstance(optimizer, torch.optim.Adagrad):
        return  # makes all state as it is built
    take_steps(optimizer, params)
    take_steps(fresh, twins[:1])
    assert torch.equal(params[0], twins[0])


class Rateless(torch.optim.Optimizer):
    """An optimizer without a learning rate."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {})


def test_an_optimizer_without_a_rate_can_freeze_but_not_slow() -> None:
    params = make_parameters(2)
    split = SplitOptimizer(Rateless(params), "mine")
    split.split({params[0]: 0.0})
    assert split.optimizer.param_groups[0]["params"] == params[1:]
    with pytest.raises(TrainingError, match=r"optimizer mine \(Rateless\) has no learning rate `lr` in its groups: ch"):
        split.split({params[0]: 0.5})


def test_the_plan_of_a_stage_has_a_part_wherever_other_pieces_are_frozen() -> None:
    stage = SCHEDULE.stages[1]
    assert list_planned_parts(None, UPDATE, SCHEDULE, stage) == []
    assert list_planned_parts(Everything(), UPDATE, SCHEDULE, stage) == [(60, "")]
    frozen = "generator's stem of 4x4 frozen"
    assert list_planned_parts(FreezeOld(), UPDATE, SCHEDULE, stage) == [(60, frozen)]
    assert list_planned_parts(FreezeOld(images=50), UPDATE, SCHEDULE, stage) == [(60, frozen), (112, "")]
    slowed = "generator's stem of 4x4, discriminator's head of 4x4 at 0.1 of the rate"
    assert list_planned_parts(SlowOld(), UPDATE, SCHEDULE, stage) == [(60, slowed)]

    warming = "generator's block of 8x8, generator's to_image of 8x8 at 0.1 to 1 of the rate"
    assert list_planned_parts(WarmUpNew(40, nets=["generator"]), UPDATE, SCHEDULE, stage) == [(60, warming)]

    # Also in a stage of many more steps than are looked at.
    long = ScheduleSettings((4, 8), 0, 100_000, 1).resolve(16, 1, 0)
    parts = list_planned_parts(FreezeD(learning=1, images=54_321), UPDATE, long, long.stages[1])
    assert [part.begin for part in parts] == [100_000, 154_321]

    # A part begins with a step, of which each draws three batches here.
    parts = list_planned_parts(FreezeD(learning=1, images=54_321), Alternating(3), long, long.stages[1])
    assert [part.begin for part in parts] == [100_000, 154_321 + -54_321 % 3]
    parts = list_planned_parts(FreezeOld(images=50), Alternating(3), SCHEDULE, stage)
    assert parts == [(60, frozen), (60 + 5 * 12, "")]


def test_which_policies_act_before_the_first_growth() -> None:
    acting = (FreezeD(images=40), Answers(2))
    waiting = (None, Everything(), FreezeOld(), SlowOld(), WarmUpNew(), FreezeD(images=100))
    assert [acts_at_base(policy, SCHEDULE) for policy in acting] == [True, True]
    assert not any(acts_at_base(policy, SCHEDULE) for policy in waiting)

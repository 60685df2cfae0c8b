"""Training under growth policies: what is frozen stays equal, and what is not learns, wherever a run is stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.compiled_steps import Steps
from torch import nn

from pggan_kit import Piece, Position, Run, hookimpl
from pggan_kit.api.prepare import prepare
from pggan_kit.errors import ConfigError
from pggan_kit.growth.fade import NETS
from pggan_kit.runs.state import TrainState
from pggan_kit.schedule import ScheduleSettings, Stage
from pggan_kit.testing.growth import copy_frozen
from pggan_kit.testing.support import are_equal
from pggan_kit.testing.tiny_runs import load_snapshots, make_tiny_experiment, summarize_run, train_tiny
from pggan_plugins.architectures import PGGAN
from pggan_plugins.averages import HalfLife
from pggan_plugins.curves import Linear
from pggan_plugins.growth import Everything, FreezeD, FreezeOld, SlowOld, WarmUpNew
from pggan_plugins.optimizers import Adam, SharedAdam
from pggan_plugins.updates import Alternating, JointBatch


class Decaying:
    """An optimizer that moves a weight also without a gradient: by its decay, and by its momentum."""

    def build(self, params: Iterable[nn.Parameter], stage: Stage) -> torch.optim.Optimizer:
        return torch.optim.SGD(params, lr=0.05, momentum=0.9, weight_decay=0.1)


PARTS: dict[str, dict[str, Any]] = {
    "decay, momentum": {"generator_optimizer": Decaying(), "discriminator_optimizer": Decaying()},
    "Adam, a copy as average": {"averages": [HalfLife({4: 1000, 8: 0}, ramp_up=None)]},
    "one optimizer for both": {
        "update": JointBatch(SharedAdam()),
        "generator_optimizer": None,
        "discriminator_optimizer": None,
    },
}


class Watch:
    """Notes what is frozen in each step, and whether it is what it was before."""

    def __init__(self) -> None:
        self.before: dict[str, torch.Tensor] = {}
        self.frozen: dict[int, int] = {}
        self.groups: dict[int, int] = {}

    @hookimpl
    def before_stage(self, state: TrainState) -> None:
        self.before = copy_frozen(state)

    @hookimpl
    def after_step(self, state: TrainState) -> None:
        # What learns from the next step on was compared in the last one.
        after = copy_frozen(state)
        for key in after.keys() & self.before.keys():
            if not (key.startswith("average") and bool(state._list_copies())):
                assert torch.equal(after[key], self.before[key]), f"{key} at images {state.images}"
        self.before = after
        self.frozen[state.images] = len(after)
        self.groups[state.images] = sum(len(optimizer.param_groups) for optimizer in state.optimizers.values())


@pytest.mark.parametrize("case", PARTS)
def test_what_is_frozen_stays_equal_and_the_rest_learns(case: str, tmp_path: Path) -> None:
    """Batch normalisation's statistics, too; from growth on until 9 images of the stage are spent, amid its fade."""
    adam = {"generator_optimizer": Adam(), "discriminator_optimizer": Adam(), "update": Alternating()}
    chosen = {
        "architecture": PGGAN(channels=4, generator_norm="batch", minibatch="none"),
        "growth": FreezeOld(images=9, nets=NETS),
        "tick": 4,
        **adam,
        **PARTS[case],
    }
    watch = Watch()
    run = train_tiny(watch, "watch", tmp_path, chosen)
    frozen = {images: bool(count) for images, count in watch.frozen.items()}
    assert frozen == {4: False, 8: False, 12: True, 16: True, 20: False, 24: False, 28: False}
    assert set(watch.groups.values()) == {1 if "one" in case else 2}, "one factor for all that learns is one group"

    # By its end all has moved, and the average of what learned followed it.
    begin, *_, end = load_snapshots(tmp_path)
    nets = {net: (getattr(begin, net), getattr(end, net)) for net in NETS}
    nets["average"] = (begin.averages["half_life"], end.averages["half_life"])
    for net, (first, last) in nets.items():
        for key, value in last.items():
            if key in first and value.is_floating_point() and value.numel() > 1:
                assert not torch.equal(value, first[key]), f"{net}'s {key}"
    assert run.state.images == 28
    if "copy" in case:
        average = run.state.ema.state_dict()
        assert all(torch.equal(value, average[key]) for key, value in run.state.generator.state_dict().items())


@pytest.mark.parametrize(
    "growth",
    [FreezeOld(images=5, nets=NETS), WarmUpNew(images=9, moments="forget_touched"), FreezeD(learning=1, images=6)],
    ids=lambda policy: type(policy).__name__,
)
@pytest.mark.usefixtures("few_calibrations")
def test_a_run_that_stops_after_every_step_ends_alike(growth: Everything, tmp_path: Path) -> None:
    """With batch normalisation, whose average is calibrated as it is frozen and at each checkpoint."""
    chosen = {
        "architecture": PGGAN(channels=4, generator_norm="batch"),
        "generator_optimizer": Adam(lr=Linear(1e-3, 1e-4, start_images=-20)),
        "discriminator_optimizer": Decaying(),
        "schedule": ScheduleSettings((4, 8), 12, 8, 2),
        "update": Alternating(),
        "growth": growth,
    }
    (tmp_path / "whole").mkdir()
    whole = train_tiny(object(), "policy", tmp_path / "whole", chosen)
    (tmp_path / "parts").mkdir()
    run = train_tiny(object(), "policy", tmp_path / "parts", chosen, single_step=True)
    while run.state.images < run.schedule.total:
        saved = run.checkpoints.load_last()
        run = train_tiny(object(), "policy", tmp_path / "parts", chosen, saved, single_step=True)
    assert are_equal(summarize_run(run), summarize_run(whole))
    assert are_equal(run.state.save_optimizers(), whole.state.save_optimizers())


class FreezesLate(Everything):
    """A policy that freezes the old pieces of G for the rest of a stage, after its first step."""

    def factor(self, piece: Piece, position: Position) -> float:
        late = position.images > position.stage_start
        return 0.0 if late and piece.net == "generator" and piece.is_old(position) else 1.0


def test_the_average_is_calibrated_before_its_normalisation_is_frozen() -> None:
    """Nobody has looked at the average since the weights moved; then its statistics fit those of before."""
    ends = []
    for reads in (True, False):
        architecture = PGGAN(channels=4, generator_norm="batch")
        state_of = Steps("never", fading=True, growth=FreezesLate(), architecture=architecture)
        state_of.take(1, alpha=0.5)
        if reads:
            _ = state_of.state.ema
        assert state_of.state.set_learning_factors()
        ends.append({key: value.clone() for key, value in state_of.state._averages["half_life"].state_dict().items()})
    assert are_equal(*ends)
    assert any(key.startswith("stem") and "running_mean" in key and value.any() for key, value in ends[1].items())


def test_a_slowed_piece_takes_shorter_steps() -> None:
    """One step of gradient descent moves it by the factor times what it moves at the optimizer's rate."""

    class Descent:
        def build(self, params: Iterable[nn.Parameter], stage: Stage) -> torch.optim.Optimizer:
            return torch.optim.SGD(params, lr=0.5)

    moved = {}
    for factor in (1.0, 0.25):
        parts = {"growth": SlowOld(factor), "generator_optimizer": Descent(), "discriminator_optimizer": Descent()}
        steps = Steps("never", fading=True, **parts)
        before = steps.weights()["discriminator"]
        steps.take(1, alpha=0.5)
        after = steps.weights()["discriminator"]
        moved[factor] = {key: after[key] - value for key, value in before.items()}
    old = [key for key in moved[1.0] if key.startswith("head.")]
    assert old
    for key, full in moved[1.0].items():
        wanted = full.double() * (0.25 if key in old else 1.0)
        torch.testing.assert_close(moved[0.25][key].double(), wanted, rtol=1e-4, atol=1e-6)
        assert full.abs().max() > 0


@pytest.mark.slow
def test_compiled_steps_are_recorded_again_where_other_pieces_are_frozen(tmp_path: Path) -> None:
    """And they are the eager ones; a factor that moves alone compiles nothing again."""
    ends = {}
    lines: dict[str, list[str]] = {}
    for setting in ("never", "always"):
        for name, growth in (("freeze", FreezeOld(images=6, nets=NETS)), ("warm", WarmUpNew(images=9))):
            steps = Steps(setting, fading=True, growth=growth)
            for _ in range(4):
                steps.take(1, alpha=0.5)
                if steps.state.set_learning_factors():
                    steps.compiler.enter_region(steps.state, steps.state.schedule)
            ends[setting, name] = steps.weights()
            lines[setting + name] = [line for line in steps.list_lines("log") if line.startswith("compiled")]
            assert not steps.list_lines("warn")
    assert len(lines["alwaysfreeze"]) == 4 and len(lines["alwayswarm"]) == 2
    for name in ("freeze", "warm"):
        for net, weights in ends["never", name].items():
            for key, value in weights.items():
                torch.testing.assert_close(ends["always", name][net][key], value, rtol=1e-3, atol=1e-5)


class FreezesAll(Everything):
    """A policy that leaves nothing of D to learn, after some images of the second stage."""

    def __init__(self, images: int) -> None:
        super().__init__()
        self.images = images

    def factor(self, piece: Piece, position: Position) -> float:
        frozen = piece.net == "discriminator" and position.stage.index == 1
        return 0.0 if frozen and position.images - position.stage_start >= self.images else 1.0


def test_a_policy_that_freezes_a_whole_network_is_refused_before_training(tiny: Callable[..., str], stub: str) -> None:
    prepared = prepare(tiny(), plugins=[stub], parts={"train.growth": FreezesAll(12)})
    with pytest.raises(ConfigError, match=r"^train.growth freezes the whole discriminator at images 20 \(stage 8x8"):
        prepared.schedule()


def test_a_policy_that_freezes_a_whole_network_later_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"TrainingError: train\.growth freezes the whole discriminator at"):
        train_tiny(object(), "policy", tmp_path, {"growth": FreezesAll(12)})


def test_weights_are_what_must_learn() -> None:
    """A piece without any, such as a layer to the image that has none, is not enough."""

    class NoWeights(PGGAN):
        def to_image(self, stage: Stage) -> nn.Module:
            return nn.Conv2d(4, stage.image_channels, 1) if stage.index == 0 else Sum()

    class Sum(nn.Module):
        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return features.mean(1, keepdim=True)

    class OnlyTheImage(Everything):
        def factor(self, piece: Piece, position: Position) -> float:
            return 1.0 if piece.net == "discriminator" or piece.name == "to_image" else 0.0

    schedule = ScheduleSettings((4, 8), 0, 8, 4)
    experiment = make_tiny_experiment(
        {"architecture": NoWeights(channels=4), "schedule": schedule, "growth": OnlyTheImage()}
    )
    state = TrainState(experiment, experiment.schedule.resolve(16, 1, 0), torch.device("cpu"))
    state.grow(dict.fromkeys(NETS, False))
    with pytest.raises(Exception, match="freezes the whole generator"):
        state.renew_optimizers()


def test_a_branch_keeps_moments_under_another_policy(tmp_path: Path) -> None:
    """A checkpoint holds optimizers as if nothing were split."""
    chosen = {"generator_optimizer": Adam(), "discriminator_optimizer": Adam()}
    slowed: Run = train_tiny(object(), "slow", tmp_path, {**chosen, "growth": SlowOld(0.5), "tick": 4})
    saved = load_snapshots(tmp_path)[-2]
    experiment = make_tiny_experiment({**chosen, "growth": FreezeOld()})
    state = TrainState(experiment, slowed.schedule, torch.device("cpu"))
    assert state.load_snapshot(saved, other_optimizers=True, own_settings=True) == {}
    (group,) = state.optimizers["G"].param_groups
    assert group["lr"] == 1e-3
    assert set(state.optimizers["G"].state) == set(state.generator.learning_weights())
    assert len(state.optimizers["G"].state) < len(saved.optimizers["G"]["state"])

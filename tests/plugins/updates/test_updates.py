"""The updates against a step written out by hand, and their conformance suites."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.variants import train_once

from pggan_kit import StepContext, hookimpl
from pggan_kit.components import Scores
from pggan_kit.errors import ConfigError
from pggan_kit.growth.fade import NETS
from pggan_kit.layers.batches import count_batches
from pggan_kit.runs.state import TrainState
from pggan_kit.schedule import Position, ScheduleSettings
from pggan_kit.system.seeding import torch_generator
from pggan_kit.testing import UpdateSuite
from pggan_kit.testing.support import are_equal, copy_weights
from pggan_kit.testing.tiny_runs import load_mid_fade, make_tiny_experiment, summarize_run, train_tiny
from pggan_kit.testing.toys import ToyLoss, ToySampler, ToyUpdate
from pggan_kit.training.step import UpdateContext, scores_of_each
from pggan_plugins.architectures import PGGAN
from pggan_plugins.augmentations import DiffAugment
from pggan_plugins.curves import Constant, Linear
from pggan_plugins.optimizers import SharedAdam
from pggan_plugins.penalties import R1, Drift
from pggan_plugins.updates import Alternating, JointBatch


def build_state(update: Any, **chosen: Any) -> TrainState:
    experiment = make_tiny_experiment({"update": update, **chosen})
    return TrainState(experiment, experiment.schedule.resolve(16, 1, 0), torch.device("cpu"))


def step(state: TrainState) -> dict[str, torch.Tensor]:
    ctx = UpdateContext(state.experiment, state, state.stage, ToySampler(state.stage), {})
    losses = state.experiment.update.step(ctx)
    state.images += ctx.drawn
    return losses


class FewerUpdates:
    """A curve: 3 up to images 8, then 1.6, then a number that rounds to 0."""

    def at(self, position: Position) -> float:
        if position.images < 8:
            return 3.0
        return 1.6 if position.images < 28 else 0.4


@pytest.mark.parametrize("n_critic", [0, 1.4, {4: 2, 8: 2.5}])
def test_a_fixed_n_critic_is_whole(n_critic: Any) -> None:
    with pytest.raises(ValueError, match=r"n_critic must be a whole number of at least 1, and is "):
        Alternating(n_critic)


def test_n_critic_follows_a_curve_that_is_rounded() -> None:
    """All updates of an iteration belong to the place at which it began: 3 of them, 2, 2, and then none."""
    state = build_state(Alternating(FewerUpdates()))
    clocks = []
    for _ in range(3):
        step(state)
        clocks.append(state.images)
    assert clocks == [12, 20, 28]
    with pytest.raises(ConfigError, match=r"n_critic must round to at least 1, and is 0\.4 at images 28 \("):
        step(state)


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("update", [Alternating, ToyUpdate])
def test_a_constant_curve_as_weight_takes_the_steps_of_the_number(update: Any, every: int) -> None:
    """Bit for bit, lazily too, although one is a tensor of the batch and the other a number."""
    weights = [3.3, Constant(3.3), {4: Constant(3.3), 8: 1.0}]
    ends = []
    for weight in weights:
        state = build_state(update(), loss=ToyLoss([Drift(0.1), R1(weight, every)]))
        for _ in range(3):
            step(state)
        ends.append({name: copy_weights(state.network(name)) for name in NETS})
    assert are_equal(ends[0], ends[1]) and are_equal(ends[0], ends[2])


def test_a_moving_weight_has_its_value_of_each_step() -> None:
    """Against runs whose constant weight is set by hand before each step."""
    moving = build_state(Alternating(2), loss=ToyLoss([R1(Linear(4.0, 0.0))]))
    plain = build_state(Alternating(2), loss=ToyLoss([R1(4.0)]))
    for images in (0, 8, 16):
        assert plain.images == images
        plain.experiment.loss.penalties[0].weight = 4.0 * (1 - images / 28)
        step(moving)
        step(plain)
    for actual, wanted in zip(moving.discriminator.parameters(), plain.discriminator.parameters(), strict=True):
        torch.testing.assert_close(actual, wanted, rtol=1e-6, atol=1e-7)


def run_step_by_hand(state: TrainState, n_critic: int, r1: float) -> None:
    """Run the paper's iteration in plain torch: n_critic updates of D with fresh reals and latents, then one of G."""
    images = state.images
    seed = state.experiment.seed
    for _ in range(n_critic):
        real = ToySampler(state.stage).batch(images, 4)[0].float() / 127.5 - 1
        images += 4
        z = torch.randn(4, 8, generator=torch_generator(seed, "latents", "discriminator", images))
        fake = state.generator(z).detach()
        real.requires_grad_(True)
        scores = state.discriminator(real).score
        (gradient,) = torch.autograd.grad(scores.sum(), real, create_graph=True)
        loss = F.softplus(-scores).mean() + F.softplus(state.discriminator(fake).score).mean()
        loss = loss + r1 * gradient.square().sum((1, 2, 3)).mean() / 2
        state.optimizers["discriminator"].zero_grad()
        loss.backward(inputs=list(state.discriminator.parameters()))
        state.optimizers["discriminator"].step()
    z = torch.randn(4, 8, generator=torch_generator(seed, "latents", "generator", images))
    loss = F.softplus(-state.discriminator(state.generator(z)).score).mean()
    state.optimizers["generator"].zero_grad()
    loss.backward(inputs=list(state.generator.parameters()))
    state.optimizers["generator"].step()
    state.images = images


@pytest.mark.parametrize("n_critic", [1, 3])
def test_alternating_against_a_step_by_hand(n_critic: int) -> None:
    loss = ToyLoss([R1(weight=3.0)])
    state, plain = (build_state(Alternating(n_critic), loss=loss) for _ in range(2))
    for _ in range(3):
        step(state)
        for param in plain.discriminator.parameters():
            param.requires_grad_(True)
        run_step_by_hand(plain, n_critic, 3.0)
    assert state.images == plain.images == 3 * 4 * n_critic
    for net in ("generator", "discriminator"):
        for actual, wanted in zip(state.network(net).parameters(), plain.network(net).parameters(), strict=True):
            torch.testing.assert_close(actual, wanted, rtol=1e-5, atol=1e-6)


class Counted(PGGAN):
    """A PGGAN that records D's calls: the number of batches side by side in each."""

    def from_image(self, stage: Any) -> torch.nn.Module:
        self.seen: list[int] = []
        layer = super().from_image(stage)
        layer.register_forward_pre_hook(lambda module, given: self.seen.append(count_batches()))
        return layer


class Normalised(Counted):
    """A PGGAN with batch norm that it does not declare."""

    def discriminator_head(self, stage: Any) -> torch.nn.Module:
        head = super().discriminator_head(stage)
        head.conv = torch.nn.Sequential(torch.nn.BatchNorm2d(7), head.conv)
        return head


@pytest.mark.parametrize(
    ("options", "augmentation", "seen"),
    [
        ({}, None, [2, 1]),
        ({"kind": Normalised}, None, [1, 1, 1]),
        ({"minibatch": "discrimination"}, None, [1, 1, 1]),
        ({"discriminator_norm": "batch"}, None, [1, 1, 1]),
        ({"discriminator_norm": "spectral"}, None, [1, 1, 1]),
        ({}, DiffAugment(), [1, 1, 1]),
    ],
)
def test_reals_and_fakes_share_a_call_where_nothing_mixes_them(
    options: dict[str, Any], augmentation: Any, seen: list[int]
) -> None:
    """And the steps are those of one call for each."""
    kind = options.get("kind", Counted)
    joint, apart = (kind(channels=6, **{k: v for k, v in options.items() if k != "kind"}) for _ in range(2))
    apart.separates_batches = False
    states = [build_state(Alternating(), architecture=a, augmentation=augmentation) for a in (joint, apart)]
    for _ in range(2):
        joint.seen.clear()
        losses = []
        for state in states:
            torch.manual_seed(state.images)  # of the augmentation's numbers
            losses.append(step(state))
        assert joint.seen == seen
        for name, value in losses[1].items():
            torch.testing.assert_close(losses[0][name], value, rtol=1e-4, atol=1e-6)
    for actual, wanted in zip(*(state.discriminator.parameters() for state in states), strict=True):
        torch.testing.assert_close(actual, wanted, rtol=1e-4, atol=1e-5)


def test_each_batch_keeps_its_labels() -> None:
    first = torch.arange(3.0)
    second = torch.arange(3.0) + 10
    labels = torch.tensor([2, 0, 1])

    def D(images: torch.Tensor, labels: torch.Tensor | None = None) -> Scores:
        return Scores(images, images[:, None] * torch.ones(1, 3), labels)

    D.separates_batches = True
    for images, actual in zip((first, second), scores_of_each(D, (first, second), labels), strict=True):
        assert torch.equal(actual.score, images) and torch.equal(actual.labels, labels)
        assert torch.equal(actual.class_logits, images[:, None].expand(3, 3))


def test_batches_of_unequal_size_are_not_put_together() -> None:
    calls: list[int] = []

    def D(images: torch.Tensor, labels: torch.Tensor | None = None) -> Scores:
        calls.append(len(images))
        return Scores(images)

    D.separates_batches = True
    actual = scores_of_each(D, (torch.zeros(3), torch.ones(5)), None)
    assert calls == [3, 5] and [len(scores.score) for scores in actual] == [3, 5]


def test_n_critic_may_depend_on_the_stage() -> None:
    state = build_state(Alternating({4: 1, 8: 3}))
    step(state)
    assert state.images == 4
    state.grow({})
    state.renew_optimizers()
    step(state)
    assert state.images == 4 + 12


def test_a_missing_optimizer_is_named() -> None:
    with pytest.raises(ValueError, match="discriminator_optimizer"):
        build_state(Alternating(), discriminator_optimizer=None)


class Noted(Drift):
    """A drift that records its values, times the weight."""

    def __init__(self, weight: float, every: int) -> None:
        super().__init__(weight, every)
        self.values: list[torch.Tensor] = []

    def __call__(self, *given: Any) -> torch.Tensor:
        value = super().__call__(*given)
        self.values.append(float(self.weight) * value.detach())
        return value


class Ticks:
    """An observer of the recorded values since the last tick."""

    def __init__(self, penalties: list[Noted]) -> None:
        self.penalties = penalties
        self.seen: list[list[list[float]]] = []

    @hookimpl
    def after_tick(self) -> None:
        self.seen.append([[float(value) for value in penalty.values] for penalty in self.penalties])
        for penalty in self.penalties:
            penalty.values.clear()


@pytest.mark.parametrize("n_critic", [1, 2, 3])
def test_the_log_has_the_mean_of_a_lazy_penalty_over_the_times_it_was_computed(n_critic: int, tmp_path: Path) -> None:
    """Unscaled, of each of D's updates in a step, and missing at a tick in which it was never computed."""
    penalties = [Noted(0.03, every=2), Noted(0.05, every=1), Noted(0.07, every=4)]
    ticks = Ticks(penalties)
    chosen = {"update": Alternating(n_critic), "loss": ToyLoss(penalties), "tick": 8, "collapse_below": 0.0}
    run = train_tiny(ticks, "ticks", tmp_path, chosen)
    rows = run.files.stats()
    tags = [f"Loss/discriminator/{name}" for name in ("Noted", "Noted_2", "Noted_3")]
    assert len(rows) == len(ticks.seen) > 1
    for row, seen in zip(rows, ticks.seen, strict=True):
        wanted = {tag: np.mean(values) for tag, values in zip(tags, seen, strict=True) if values}
        actual = {tag: value for tag, value in row.items() if "Noted" in tag}
        assert actual == pytest.approx(wanted, rel=1e-5)
    assert sum(len(seen[0]) for seen in ticks.seen) > 2


def test_hooks_get_the_mean_of_what_a_step_computed_several_times(tmp_path: Path) -> None:
    class Watch:
        @hookimpl
        def after_step(self, losses: dict[str, torch.Tensor]) -> None:
            means = losses["Scores/real"], losses["Loss/discriminator/logistic"]
            assert [mean.dim() for mean in means] == [0, 0]
            for mean, values in zip(means, update.last, strict=True):
                torch.testing.assert_close(mean, values.sum() / 3)

    class Kept(Alternating):
        def step(self, ctx: StepContext) -> dict[str, torch.Tensor]:
            losses = super().step(ctx)
            self.last = losses["Scores/real"], losses["Loss/discriminator/logistic"]
            assert [len(values) for values in self.last] == [3, 3]
            return losses

    update = Kept(n_critic=3)
    train_tiny(Watch(), "watch", tmp_path, {"update": update})


class Greedy(Alternating):
    """An update that draws one batch more than it uses."""

    def step(self, ctx: StepContext) -> dict[str, torch.Tensor]:
        ctx.reals()
        return super().step(ctx)


@pytest.mark.parametrize(
    ("chosen", "n_critic"),
    [
        ({}, 1),
        ({}, 3),
        ({"micro_batch": 2}, 1),
        ({"micro_batch": 2}, 3),
        pytest.param({"compile": "always"}, 1, marks=pytest.mark.slow),
        pytest.param({"compile": "always"}, 3, marks=pytest.mark.slow),
    ],
)
@pytest.mark.usefixtures("no_compiler_needed")
def test_a_lazy_penalty_is_computed_every_kth_time_whatever_is_drawn(
    chosen: dict[str, Any], n_critic: int, tmp_path: Path
) -> None:
    """In a run, and in one that is resumed between two turns, which ends in the same weights bit for bit."""
    drawn = 4 * (n_critic + 1)
    schedule = ScheduleSettings((4, 8), fade_images=5 * drawn, stable_images=4 * drawn, batch_size=4)
    chosen = {"update": Greedy(n_critic), "schedule": schedule, "tick": drawn, **chosen}
    eager = "compile" not in chosen
    whole, again = (Noted(0.1, every=2) if eager else Drift(0.1, every=2) for _ in range(2))
    run = train_tiny(object(), "nobody", tmp_path, {**chosen, "loss": ToyLoss([whole])})
    saved = load_mid_fade(tmp_path)
    assert saved.discriminator_updates % 2 == 1, "the run must break between two turns"
    assert run.state.starts == [0, 4 * drawn] and run.state.images == 13 * drawn
    slices = 4 // chosen.get("micro_batch", 4)
    if isinstance(whole, Noted):  # a compiled step calls no Python
        assert len(whole.values) == slices * (-(-4 * n_critic // 2) + -(-9 * n_critic // 2))
    resumed = train_tiny(object(), "nobody", tmp_path, {**chosen, "loss": ToyLoss([again])}, saved)
    assert are_equal(summarize_run(resumed), summarize_run(run))


def test_a_loss_with_a_term_named_like_its_penalty_is_refused() -> None:
    class Clash(ToyLoss):
        def discriminator(self, real: Scores, fake: Scores) -> dict[str, torch.Tensor]:
            return {"R1": real.score.mean()}

    with pytest.raises(ValueError, match="the loss has a term R1, which is the name of its penalty's term"):
        step(build_state(Alternating(), loss=Clash([R1()])))


class TestAlternating(UpdateSuite):
    bad_arguments = ({"n_critic": 0}, {"n_critic": {4: 1, 8: 0}})

    def make(self) -> Alternating:
        return Alternating()


@train_once
class TestAlternatingWithFiveCritics(UpdateSuite):
    def make(self) -> Alternating:
        return Alternating(n_critic=5)


class TestJointBatch(UpdateSuite):
    def make(self) -> JointBatch:
        return JointBatch(SharedAdam())

    def choose_arguments(self, part: Any) -> dict[str, Any]:
        return {"update": part, "generator_optimizer": None, "discriminator_optimizer": None}


def test_a_penalty_weighs_by_the_stage(train: Callable[..., Any]) -> None:
    """`{4: 0, 8: 2, 16: 6}`: the reported term over what a weight of 1 gives, in the first step of each stage."""

    class First:
        """The term of each size's first step; with frozen networks it depends on the weight alone."""

        def __init__(self) -> None:
            self.terms: dict[int, float] = {}

        @hookimpl
        def after_step(self, stage: Any, losses: dict[str, torch.Tensor]) -> None:
            self.terms.setdefault(stage.height, float(losses["Loss/discriminator/R1"]))

    loss = ("train.loss = @losses.Hinge()", "losses.Hinge.penalties = [@penalties.R1()]")
    frozen = (*loss, "optimizers.Adam.lr = 1e-30")
    one = First()
    staged = First()
    train(*frozen, "penalties.R1.weight = 1.0", plugins=(one,), run_dir="one")
    train(*frozen, "penalties.R1.weight = {4: 0.0, 8: 2.0, 16: 6.0}", plugins=(staged,), run_dir="staged")
    assert all(one.terms.values())
    ratios = {size: staged.terms[size] / one.terms[size] for size in one.terms}
    assert ratios == pytest.approx({4: 0.0, 8: 2.0, 16: 6.0})

"""The updates against a step written out by hand, and the conformance suite."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from pggan_kit import hookimpl
from pggan_kit.components import Scores
from pggan_kit.networks import batches
from pggan_kit.seeding import torch_generator
from pggan_kit.state import TrainState
from pggan_kit.steps import StepContext, scores_of_each
from pggan_kit.testing import UpdateSuite
from pggan_kit.testing.base import tiny_experiment
from pggan_kit.testing.toys import ToyLoss, ToySampler
from pggan_plugins.architectures import PGGAN
from pggan_plugins.augmentations import DiffAugment
from pggan_plugins.optimizers import SharedAdam
from pggan_plugins.penalties import R1
from pggan_plugins.updates import Alternating, JointBatch


def new_state(update: Any, **chosen: Any) -> TrainState:
    experiment = tiny_experiment({"update": update, **chosen})
    return TrainState(experiment, experiment.schedule.resolve(16, 1, 0), torch.device("cpu"))


def step(state: TrainState) -> dict[str, torch.Tensor]:
    ctx = StepContext(state.experiment, state, state.stage, ToySampler(state.stage), {})
    losses = state.experiment.update.step(ctx)
    state.images += ctx.drawn
    return losses


def by_hand(state: TrainState, n_critic: int, r1: float) -> None:
    """The paper's iteration with plain torch: n_critic updates of D with fresh reals and latents, then one of G."""
    images, seed = state.images, state.experiment.seed
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
    state, plain = (new_state(Alternating(n_critic), loss=loss) for _ in range(2))
    for _ in range(3):
        step(state)
        for param in plain.discriminator.parameters():
            param.requires_grad_(True)
        by_hand(plain, n_critic, 3.0)
    assert state.images == plain.images == 3 * 4 * n_critic
    for net in ("generator", "discriminator"):
        for found, wanted in zip(state.network(net).parameters(), plain.network(net).parameters(), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


class Counted(PGGAN):
    """Counts D's calls, and how many batches are side by side in each."""

    def from_image(self, stage: Any) -> torch.nn.Module:
        self.seen: list[int] = []
        layer = super().from_image(stage)
        layer.register_forward_pre_hook(lambda module, given: self.seen.append(batches()))
        return layer


class Normalised(Counted):
    """Says nothing of the batch norm that it brings."""

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
    states = [new_state(Alternating(), architecture=a, augmentation=augmentation) for a in (joint, apart)]
    for _ in range(2):
        joint.seen.clear()
        losses = []
        for state in states:
            torch.manual_seed(state.images)  # of the augmentation's numbers
            losses.append(step(state))
        assert joint.seen == seen
        for name, value in losses[1].items():
            torch.testing.assert_close(losses[0][name], value, rtol=1e-4, atol=1e-6)
    for found, wanted in zip(*(state.discriminator.parameters() for state in states), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_each_batch_keeps_its_labels() -> None:
    first, second, labels = torch.arange(3.0), torch.arange(3.0) + 10, torch.tensor([2, 0, 1])

    def D(images: torch.Tensor, labels: torch.Tensor | None = None) -> Scores:
        return Scores(images, images[:, None] * torch.ones(1, 3), labels)

    D.separates_batches = True
    for images, found in zip((first, second), scores_of_each(D, (first, second), labels), strict=True):
        assert torch.equal(found.score, images) and torch.equal(found.labels, labels)
        assert torch.equal(found.class_logits, images[:, None].expand(3, 3))


def test_batches_of_unequal_size_are_not_put_together() -> None:
    calls: list[int] = []

    def D(images: torch.Tensor, labels: torch.Tensor | None = None) -> Scores:
        calls.append(len(images))
        return Scores(images)

    D.separates_batches = True
    found = scores_of_each(D, (torch.zeros(3), torch.ones(5)), None)
    assert calls == [3, 5] and [len(scores.score) for scores in found] == [3, 5]


def test_n_critic_may_depend_on_the_stage() -> None:
    state = new_state(Alternating({4: 1, 8: 3}))
    step(state)
    assert state.images == 4
    state.grow({})
    state.renew_optimizers(reset=False)
    step(state)
    assert state.images == 4 + 12


def test_an_update_says_which_optimizer_it_lacks() -> None:
    with pytest.raises(ValueError, match="discriminator_optimizer"):
        new_state(Alternating(), discriminator_optimizer=None)


class TestAlternating(UpdateSuite):
    bad_arguments = ({"n_critic": 0}, {"n_critic": {4: 1, 8: 0}})

    def make(self) -> Alternating:
        return Alternating()


class TestAlternatingWithFiveCritics(UpdateSuite):
    batches = 5

    def make(self) -> Alternating:
        return Alternating(n_critic=5)


class TestJointBatch(UpdateSuite):
    def make(self) -> JointBatch:
        return JointBatch(SharedAdam())

    def chosen(self, part: Any) -> dict[str, Any]:
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
    one, staged = First(), First()
    train(*frozen, "penalties.R1.weight = 1.0", plugins=(one,), run_dir="one")
    train(*frozen, "penalties.R1.weight = {4: 0.0, 8: 2.0, 16: 6.0}", plugins=(staged,), run_dir="staged")
    assert all(one.terms.values())
    ratios = {size: staged.terms[size] / one.terms[size] for size in one.terms}
    assert ratios == pytest.approx({4: 0.0, 8: 2.0, 16: 6.0})

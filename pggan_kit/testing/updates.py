"""Test that updates keep their contract."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pggan_kit.components import EncoderTerms, Reals, Scores, TensorBatch, Terms
from pggan_kit.errors import PluginError
from pggan_kit.growth.planned_steps import count_drawn_batches
from pggan_kit.runs.state import TrainState
from pggan_kit.schedule import Position, Stage, Varying
from pggan_kit.testing.suite import StepSuite, start_fade
from pggan_kit.testing.support import are_equal, copy_weights, require
from pggan_kit.testing.tiny_runs import make_run
from pggan_kit.testing.toys import ToyArchitecture, ToyLoss, ToyOptimizer, ToySampler, sum_terms
from pggan_kit.training.contract_check import describe_wrong_report
from pggan_kit.training.step import UpdateContext


class WatchedContext(UpdateContext):
    """A context that notes what an update draws, and when which weights change.

    Attributes:
        real_batches: Number of batches of reals that were drawn.
        drawn_streams: Streams of the latents that were drawn.
        moved: Networks that were minimised, in order.
        complaints: Sentences about what went wrong.
    """

    def __init__(self, state: TrainState, stage: Stage, alpha: Mapping[str, Tensor]) -> None:
        super().__init__(state.experiment, state, stage, ToySampler(stage), alpha)
        self.state = state
        self.real_batches = 0
        self.drawn_streams: list[str] = []
        self.moved: list[str] = []
        self.complaints: list[str] = []
        self.last = self.copy_parameters()

    def copy_parameters(self) -> dict[str, dict[str, Tensor]]:
        """Return a copy of all networks' parameters."""
        copies = {}
        for net, network in self.state.networks.items():
            copies[net] = {name: param.detach().clone() for name, param in network.named_parameters()}
        return copies

    def reals(self) -> Reals:
        """See `StepContext.reals`."""
        self.real_batches += 1
        return super().reals()

    def latents(self, stream: str, count: int | None = None) -> Tensor:
        """See `StepContext.latents`."""
        self.drawn_streams.append(stream)
        return super().latents(stream, count)

    def check_untouched(self) -> None:
        """Complain where weights changed since the last `minimise`."""
        now = self.copy_parameters()
        for net, before in self.last.items():
            if not are_equal(now[net], before):
                self.complaints.append(f"the update changes the {net}'s weights outside ctx.minimise")

    def minimise(
        self, optimizer: str, net: str, terms: Terms | EncoderTerms, batch: TensorBatch, *, inference: bool = False
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """See `StepContext.minimise`."""
        self.check_untouched()
        result = super().minimise(optimizer, net, terms, batch, inference=inference)

        # Only the named network's weights may change, and they must.
        now = self.copy_parameters()
        for other in now:
            if other != net and not are_equal(now[other], self.last[other]):
                self.complaints.append(f"minimising the {net}'s terms changes the {other}'s weights too")
        if are_equal(now[net], self.last[net]):
            self.complaints.append(
                f"minimising with optimizer {optimizer!r} changes nothing of the {net}: it does not hold its weights"
            )
        self.last = now
        self.moved.append(net)
        return result


class ContextOfOtherReals(WatchedContext):
    """A context whose reals have the opposite sign."""

    def reals(self) -> Reals:
        """See `StepContext.reals`."""
        reals = super().reals()
        return reals._replace(images=-reals.images)


class ContextOfOtherLatents(WatchedContext):
    """A context whose latents have the opposite sign."""

    def latents(self, stream: str, count: int | None = None) -> Tensor:
        """See `StepContext.latents`."""
        return -super().latents(stream, count)


class DescendingContext(WatchedContext):
    """A context that takes each step of G and D twice, and complains where the first one did not lower the loss."""

    def minimise(
        self, optimizer: str, net: str, terms: Terms | EncoderTerms, batch: TensorBatch, *, inference: bool = False
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """See `StepContext.minimise`."""
        loss = self.experiment.loss
        assert isinstance(loss, RecordingLoss)

        # The second step begins with the terms that the first one led to.
        totals = []
        for _ in range(2):
            torch.manual_seed(0)
            loss.totals = {"discriminator": [], "generator": []}
            result = super().minimise(optimizer, net, terms, batch, inference=inference)
            totals.append(sum(loss.totals.get(net, [])))
        before, after = totals
        if loss.totals.get(net) and not after < before:
            self.complaints.append(
                f"minimising the {net}'s terms raises what the loss gives for it from {float(before):.6g} to "
                f"{float(after):.6g}: is the sign of a term wrong, or are reals and fakes exchanged?"
            )
        return result


class UpdateSuite(StepSuite):
    """Updates: one training iteration, on toy networks.

    Attributes:
        uses_penalties: Whether the loss's penalties are terms of D.
        uses_loss: Whether both networks minimise the loss's terms; False where other terms may outweigh them.
        uses_needs_real: Whether a loss that asks for the scores of reals in G's terms gets them.
    """

    kind = "updates"
    uses_penalties = True
    uses_loss = True
    uses_needs_real = True

    def choose_arguments(self, component: Any) -> dict[str, Any]:
        """Return the component as `train.update`, with a toy encoder where it trains one."""
        chosen = {"update": component}
        if hasattr(component, "encoder_optimizers"):
            chosen |= {"encoder_architecture": ToyArchitecture(), "encoder_optimizer": ToyOptimizer()}
        return chosen

    def state(self, loss: Any = None) -> TrainState:
        """Return new toy networks with the update's optimizers, and a loss other than the toy one if given."""
        component, name = self.make_named()
        chosen = self.choose_arguments(component)
        if loss is not None:
            chosen = {**chosen, "loss": loss}
        with tempfile.TemporaryDirectory() as folder:
            return make_run(component, name, Path(folder), chosen).state

    def step(
        self,
        state: TrainState,
        alpha: Mapping[str, Tensor] | None = None,
        context: type[WatchedContext] = WatchedContext,
    ) -> tuple[WatchedContext, Any]:
        """Run one iteration, seeded as the loop seeds it; return its context and what the update returned."""
        torch.manual_seed(state.images)
        ctx = context(state, state.stage, alpha or {})
        returned = state.experiment.update.step(ctx)
        ctx.check_untouched()
        state.images += ctx.drawn
        return ctx, returned

    def test_optimizers(self) -> None:
        """Require optimizers that together hold every parameter of all networks that learns."""
        # The state of training checks them as it is made.
        try:
            self.state()
        except PluginError as error:
            raise AssertionError(str(error)) from error

    def test_changes_weights_in_minimise_alone(self) -> None:
        """Require all networks to learn, each only in the minimisation that names it; in a stage and in a fade."""
        fading = self.state()
        alpha = start_fade(fading)
        cases: list[tuple[TrainState, dict[str, Tensor]]] = [(self.state(), {}), (fading, alpha)]
        for state, alphas in cases:
            ctx, _ = self.step(state, alphas)
            require(not ctx.complaints, "; ".join(ctx.complaints))
            for net in state.networks:
                require(net in ctx.moved, f"one step changes nothing of the {net}: ctx.minimise is never called for it")

    def test_draws_through_the_context(self) -> None:
        """Require reals and latents from the context; the clock moves by as many whole batches as declared."""
        state = self.state()
        declared = count_drawn_batches(state.experiment.update, state.position)
        ctx, _ = self.step(state)
        require(ctx.real_batches > 0, "the update draws no reals through ctx.reals(): the clock would stand still")
        require(
            ctx.real_batches == declared,
            f"a step draws {ctx.real_batches} batches of reals, and {declared} by count_drawn_batches(position), which "
            "gives 1 where there is no such method",
        )
        require(bool(ctx.drawn_streams), "the update draws no latents through ctx.latents()")
        later, _ = self.step(state)
        require(
            later.drawn == ctx.drawn and later.drawn_streams == ctx.drawn_streams,
            "two steps draw different numbers of batches",
        )

    def test_returns(self) -> None:
        """Require detached, finite tensors by tag, `Loss/...` or `Scores/...`: 0-dim, or (k,)."""
        _, returned = self.step(self.state())
        wrong = describe_wrong_report(returned)
        require(wrong is None, str(wrong))
        require(bool(returned), "step() returns nothing that is to be logged")
        for tag, value in returned.items():
            require(value.numel() > 0, f"step() returns {tag!r} without a value: leave out what was not computed")
            require(
                not value.requires_grad, f"step() returns {tag!r} with its graph, which would be kept for a whole tick"
            )
            require(bool(value.isfinite().all()), f"step() returns {tag!r}, which is not finite")

    def test_same_position_same_step(self) -> None:
        """Require all randomness to come from the context and torch's seeded generator."""
        ends = []
        for seed in (1, 2):
            state = self.state()

            # These generators are not seeded by a run.
            random.seed(seed)
            np.random.seed(seed)
            self.step(state)
            ends.append({name: copy_weights(net) for name, net in state.networks.items()})
        require(are_equal(*ends), "two steps at the same place of the clock differ: random numbers come from elsewhere")

    def test_penalties(self) -> None:
        """Require the loss's penalties to be added when they are due only, with `weight` times `every`."""
        if not self.uses_penalties:
            return

        # When they are due.
        each = CountingPenalty(every=1)
        lazy = CountingPenalty(every=3)
        state = self.state(ToyLoss([each, lazy]))
        for _ in range(4):
            self.step(state)
        require(each.calls > 0, "the update leaves out the loss's penalties")
        require(
            each.calls % 4 == 0 and lazy.calls == -(-each.calls // 3),
            f"a penalty with every=3 is added {lazy.calls} times where one with every=1 is added {each.calls} times: "
            "ask ctx.due() which are due",
        )

        # By how much: the first two have the same product.
        first, same, more = (self._step_with_penalty(*case) for case in ((0.02, 100), (0.01, 200), (0.04, 100)))
        require(
            are_equal(first, same) and not are_equal(first, more),
            "a penalty's term is not multiplied by weight * every",
        )

        # A weight that moves is not the number that it was in an earlier step.
        moving = self._step_with_penalty(HeldCurve(0.02), 100)
        require(
            are_equal(first, moving),
            "a penalty's term has another weight where the weight is a curve: multiply its value by `due.weigh(value, "
            "batch)`, which knows the weight at this place of the clock",
        )

    def _step_with_penalty(self, weight: Varying[float], every: int) -> dict[str, Tensor]:
        """Return D's weights after a step with a penalty."""
        state = self.state(ToyLoss([CountingPenalty(every, weight)]))
        self.step(state)
        return copy_weights(state.discriminator)

    def test_reals_and_fakes(self) -> None:
        """Require D's terms to be computed of the scores of drawn reals, and of fakes of drawn latents."""
        if not self.uses_loss:
            return
        (real, fake), (other_real, _), (_, other_fake) = (
            self._score_first_batch(context) for context in (WatchedContext, ContextOfOtherReals, ContextOfOtherLatents)
        )
        require(
            not torch.equal(real, other_real),
            "the first scores that the loss is given for D's terms are not those of the drawn reals: pass "
            "loss.discriminator() the scores of reals first",
        )
        require(
            not torch.equal(fake, other_fake),
            "the second scores that the loss is given for D's terms are not those of fakes: pass loss.discriminator() "
            "the scores of G's images of the drawn latents second",
        )

    def _score_first_batch(self, context: type[WatchedContext]) -> tuple[Tensor, Tensor]:
        """Return the scores of reals and fakes for which the loss is first asked for D's terms."""
        loss = RecordingLoss()
        self.step(self.state(loss), context=context)
        require(loss.first is not None, "the update never asks the loss for the discriminator's terms")
        assert loss.first is not None
        return loss.first

    def test_descends(self) -> None:
        """Require each minimisation to lower what the loss gives for its network."""
        if not self.uses_loss:
            return
        ctx, _ = self.step(self.state(RecordingLoss()), context=DescendingContext)
        require(not ctx.complaints, "; ".join(ctx.complaints))

    def test_needs_real(self) -> None:
        """Require a loss that `needs_real` to get the scores of reals in the generator's terms."""
        if not self.uses_needs_real:
            return
        loss = PairedLoss()
        self.step(self.state(loss))
        require(loss.asked, "the update never asks the loss for the generator's terms")
        require(loss.given, "the loss says needs_real, but its generator's terms are given no scores of reals")


class RecordingLoss(ToyLoss):
    """The toy loss, which notes what it is given and what it gives.

    Attributes:
        first: Scores of reals and fakes for which D's terms were first computed; None before.
        totals: Sums of the terms, by network, which the owner empties.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first: tuple[Tensor, Tensor] | None = None
        self.totals: dict[str, list[Tensor]] = {"discriminator": [], "generator": []}

    def discriminator(self, real: Scores, fake: Scores) -> dict[str, Tensor]:
        """See `ToyLoss.discriminator`."""
        if self.first is None:
            self.first = (real.score.detach(), fake.score.detach())
        terms = super().discriminator(real, fake)
        self.totals["discriminator"].append(sum_terms(terms).detach())
        return terms

    def generator(self, fake: Scores, real: Scores | None) -> dict[str, Tensor]:
        """See `ToyLoss.generator`."""
        terms = super().generator(fake, real)
        self.totals["generator"].append(sum_terms(terms).detach())
        return terms


class HeldCurve:
    """A curve that has one value everywhere.

    Args:
        value: The value.
    """

    def __init__(self, value: float) -> None:
        self.value = value

    def at(self, position: Position) -> float:
        """Return the value."""
        return self.value


class CountingPenalty:
    """The mean square of reals' scores.

    Attributes:
        calls: Number of calls so far.
    """

    def __init__(self, every: int = 1, weight: Varying[float] = 1.0) -> None:
        self.weight = weight
        self.every = every
        self.calls = 0

    def __call__(
        self, critic: Any, real: Tensor, fake: Tensor, real_scores: Scores, fake_scores: Scores, mix: Tensor
    ) -> Tensor:
        """Return the penalty, 0-dim."""
        self.calls += 1
        return real_scores.score.square().mean()


class PairedLoss(ToyLoss):
    """A loss that compares each fake with a real.

    Attributes:
        asked: Whether it was asked for the generator's terms.
        given: Whether it was given the scores of reals for them.
    """

    needs_real = True

    def __init__(self) -> None:
        super().__init__()
        self.asked = False
        self.given = False

    def generator(self, fake: Scores, real: Scores | None) -> dict[str, Tensor]:
        """Return `paired`."""
        self.asked = True
        self.given = real is not None
        difference = fake.score
        if real is not None:
            difference = fake.score - real.score
        return {"paired": torch.nn.functional.softplus(-difference).mean()}

"""The suite of updates."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pggan_kit.components import Part, Reals, Scores, Terms
from pggan_kit.growth.fade import NETS, PATHS
from pggan_kit.runs.state import TrainState
from pggan_kit.schedule import PerStage, Stage
from pggan_kit.testing.base import TrainedSuite
from pggan_kit.testing.support import equal, require, weights
from pggan_kit.testing.tiny_runs import new_run
from pggan_kit.testing.toys import ToyLoss, ToySampler
from pggan_kit.training.step import TrainingStep


class WatchedContext(TrainingStep):
    """A context that notes what an update draws, and who changes which weights.

    Attributes:
        drawn_streams: of latents.
        moved: the networks that were minimised, in order.
        complaints: what went wrong, in sentences.
    """

    def __init__(self, state: TrainState, stage: Stage, alpha: Mapping[str, Tensor]) -> None:
        super().__init__(state.experiment, state, stage, ToySampler(stage), alpha)
        self.state = state
        self.real_batches = 0
        self.drawn_streams: list[str] = []
        self.moved: list[str] = []
        self.complaints: list[str] = []
        self.last = self.snapshot()

    def snapshot(self) -> dict[str, dict[str, Tensor]]:
        """Both networks' parameters."""
        return {
            net: {name: param.detach().clone() for name, param in self.state.network(net).named_parameters()}
            for net in NETS
        }

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
        for net, then in self.last.items():
            if not equal(self.snapshot()[net], then):
                self.complaints.append(f"the update changes the {net}'s weights outside ctx.minimise")

    def minimise(
        self, optimizer: str, net: str, terms: Terms, part: Part, *, inference: bool = False
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """See `StepContext.minimise`."""
        self.check_untouched()
        result = super().minimise(optimizer, net, terms, part, inference=inference)
        now = self.snapshot()
        other = NETS[1 - NETS.index(net)]
        if not equal(now[other], self.last[other]):
            self.complaints.append(f"minimising the {net}'s terms changes the {other}'s weights too")
        if equal(now[net], self.last[net]):
            self.complaints.append(
                f"minimising with optimizer {optimizer!r} changes nothing of the {net}: it does not hold its weights"
            )
        self.last = now
        self.moved.append(net)
        return result


class UpdateSuite(TrainedSuite):
    """One training iteration, on toy networks.

    Attributes:
        uses_penalties: whether the loss's penalties are part of D's update.
        uses_needs_real: whether a loss that asks for the scores of reals in G's part gets them.
    """

    kind = "updates"
    uses_penalties = True
    uses_needs_real = True

    def chosen(self, part: Any) -> dict[str, Any]:
        """As `train.update`."""
        return {"update": part}

    def state(self, loss: Any = None) -> TrainState:
        """New toy networks with the update's optimizers."""
        part, name = self.part()
        chosen = {**self.chosen(part), **({} if loss is None else {"loss": loss})}
        with tempfile.TemporaryDirectory() as folder:
            return new_run(part, name, Path(folder), chosen).state

    def step(self, state: TrainState, alpha: Mapping[str, Tensor] | None = None) -> tuple[WatchedContext, Any]:
        """One iteration, seeded as the loop seeds it."""
        torch.manual_seed(state.images)
        ctx = WatchedContext(state, state.stage, alpha or {})
        returned = state.experiment.update.step(ctx)
        ctx.check_untouched()
        state.images += ctx.drawn
        return ctx, returned

    def test_optimizers(self) -> None:
        """Together they hold every parameter of both networks."""
        state = self.state()
        require(
            isinstance(state.optimizers, dict)
            and all(isinstance(value, torch.optim.Optimizer) for value in state.optimizers.values()),
            "optimizers() returns no dict of torch optimizers by name",
        )
        held = {
            id(param)
            for optimizer in state.optimizers.values()
            for group in optimizer.param_groups
            for param in group["params"]
        }
        for net in NETS:
            for name, param in state.network(net).named_parameters():
                require(id(param) in held, f"no optimizer holds the {net}'s {name}: it would never learn")

    def test_changes_weights_in_minimise_alone(self) -> None:
        """Both networks learn, each only in the minimisation that names it; in a stage and in a fade."""
        for state, alpha in self._places():
            ctx, _ = self.step(state, alpha)
            require(not ctx.complaints, "; ".join(ctx.complaints))
            for net in NETS:
                require(net in ctx.moved, f"one step changes nothing of the {net}: ctx.minimise is never called for it")

    def _places(self) -> list[tuple[TrainState, dict[str, Tensor]]]:
        fading = self.state()
        fading.grow({net: True for net in NETS})
        fading.renew_optimizers(reset=False)
        return [(self.state(), {}), (fading, {path: torch.tensor(0.5) for path in PATHS})]

    def test_draws_through_the_context(self) -> None:
        """Reals and latents come from the context; the clock moves by whole batches."""
        state = self.state()
        ctx, _ = self.step(state)
        require(ctx.real_batches > 0, "the update draws no reals through ctx.reals(): the clock would stand still")
        require(bool(ctx.drawn_streams), "the update draws no latents through ctx.latents()")
        before = ctx.drawn_streams
        later, _ = self.step(state)
        require(
            later.drawn == ctx.drawn and later.drawn_streams == before, "two steps draw different numbers of batches"
        )

    def test_returns(self) -> None:
        """Detached, finite tensors by tag: 0-dim, or (k,)."""
        _, returned = self.step(self.state())
        require(isinstance(returned, dict) and bool(returned), "step() returns no dict of what is to be logged")
        for tag, value in returned.items():
            require(
                isinstance(value, Tensor) and value.dim() <= 1 and value.numel() > 0,
                f"step() returns {tag!r}, which is no 0-dim tensor, and no (k,) of what was computed k times",
            )
            require(
                not value.requires_grad, f"step() returns {tag!r} with its graph, which would be kept for a whole tick"
            )
            require(bool(value.isfinite().all()), f"step() returns {tag!r}, which is not finite")
            require("/" in tag, f"step() returns the tag {tag!r}; tags begin with Loss/ or Scores/")

    def test_same_position_same_step(self) -> None:
        """All randomness comes from the context and torch's seeded generator."""
        ends = []
        for seed in (1, 2):
            state = self.state()
            random.seed(seed)
            np.random.seed(seed)
            self.step(state)
            ends.append({net: weights(state.network(net)) for net in NETS})
        require(equal(*ends), "two steps at the same place of the clock differ: random numbers come from elsewhere")

    def test_penalties(self) -> None:
        """The loss's penalties are added, at their turns only, with `weight` times `every`."""
        if not self.uses_penalties:
            return
        each, lazy = CountingPenalty(every=1), CountingPenalty(every=3)
        state = self.state(ToyLoss([each, lazy]))
        for _ in range(4):
            self.step(state)
        require(each.calls > 0, "the update leaves out the loss's penalties")
        require(
            each.calls % 4 == 0 and lazy.calls == -(-each.calls // 3),
            f"a penalty with every=3 is added {lazy.calls} times where one with every=1 is added {each.calls} times: "
            "ask ctx.due() which are due",
        )
        ends = []
        for weight, every in ((0.02, 100), (0.01, 200), (0.04, 100)):
            state = self.state(ToyLoss([CountingPenalty(every, weight)]))
            self.step(state)
            ends.append(weights(state.discriminator))
        first, same, more = ends
        require(equal(first, same) and not equal(first, more), "a penalty's term is not multiplied by weight * every")

    def test_needs_real(self) -> None:
        """A loss whose generator's part needs the scores of reals gets them, and labels travel with scores."""
        if not self.uses_needs_real:
            return
        loss = PairedLoss()
        self.step(self.state(loss))
        require(loss.asked, "the update never asks the loss for the generator's terms")
        require(loss.given, "the loss says needs_real, but its generator's part is given no scores of reals")


class CountingPenalty:
    """The mean square of reals' scores; counts how often it is asked."""

    def __init__(self, every: int = 1, weight: float = 1.0) -> None:
        self.weight: PerStage[float] = weight
        self.every, self.calls = every, 0

    def __call__(
        self, critic: Any, real: Tensor, fake: Tensor, real_scores: Scores, fake_scores: Scores, mix: Tensor
    ) -> Tensor:
        """0-dim."""
        self.calls += 1
        return real_scores.score.square().mean()


class PairedLoss(ToyLoss):
    """A loss that compares each fake with a real."""

    needs_real = True

    def __init__(self) -> None:
        super().__init__()
        self.asked = self.given = False

    def generator(self, fake: Scores, real: Scores | None) -> dict[str, Tensor]:
        """`paired`."""
        self.asked, self.given = True, real is not None
        base = fake.score if real is None else fake.score - real.score
        return {"paired": torch.nn.functional.softplus(-base).mean()}

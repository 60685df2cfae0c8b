"""What an update works with: drawing reals and latents, and `minimise`, the one place that changes weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pggan_kit.components import (
    Critic,
    DiscriminatorCall,
    GeneratorCall,
    Part,
    Penalty,
    Reals,
    Scores,
    Terms,
)
from pggan_kit.data.sampler import Source
from pggan_kit.experiment import Experiment
from pggan_kit.growth.fade import fade_reals
from pggan_kit.growth.networks import Growing
from pggan_kit.layers.batches import side_by_side
from pggan_kit.layers.derivatives import differentiated_twice
from pggan_kit.layers.tensors import images_from_uint8
from pggan_kit.runs.state import TrainState
from pggan_kit.schedule import Stage
from pggan_kit.system import distributed
from pggan_kit.system.seeding import torch_generator
from pggan_kit.training import micro_batches as microbatches
from pggan_kit.training.non_finite import Guard, float_buffers

Differentiated = tuple[dict[str, Tensor], dict[str, Tensor]]
"""What `terms` returned, detached."""


class Work(NamedTuple):
    """One backward pass: of a batch, or of a micro-batch.

    Attributes:
        net: `generator` or `discriminator`, whose parameters get gradients.
        terms, part: see `StepContext.minimise`.
        alpha: by path; without those that do not fade.
        factor: 0-dim, of the terms' sum before it is differentiated; None for 1.
        precision: one of `train.precision`'s, instead of the experiment's.
    """

    net: str
    terms: Terms
    part: Part
    alpha: Mapping[str, Tensor]
    factor: Tensor | None
    precision: str | None = None


Backward = Callable[[Work], Differentiated]
"""Adds the gradients to those of the parameters."""

Compiled = Callable[[Work, Backward], Differentiated]
"""Does the work of a backward pass by compiled code, or by the pass that it is given: `training.compiler.Compiler`."""


def image_gradients(critic: Critic, images: Tensor) -> Tensor:
    """The gradient of each sample's score with respect to its image: (N, C, h, w), itself differentiable.

    Every penalty takes its gradients here, so that the core can change how they are computed for all of them.
    """
    images = images.detach().requires_grad_(True)
    with differentiated_twice():
        score = critic(images).score
    (gradient,) = torch.autograd.grad(score.sum(), images, create_graph=True)
    return gradient


def scores_of_each(D: DiscriminatorCall, batches: Sequence[Tensor], labels: Tensor | None) -> list[Scores]:
    """The discriminator's scores of several batches (N, C, h, w), each as if it came alone.

    Where the architecture `separates_batches`, and no augmentation is before it, batches of equal size go through in
    one call: small stages spend more time on operations' overhead than on numbers.

    Args:
        labels: (N,), the same for each batch.
    """
    alike = len({(images.shape, images.dtype) for images in batches}) == 1
    if not (alike and getattr(D, "separates_batches", False)):
        return [D(images, labels) for images in batches]
    with side_by_side(len(batches)):
        scores = D(torch.cat(list(batches)), None if labels is None else labels.repeat(len(batches)))
    rows = len(batches[0])
    return [scores.rows(slice(start, start + rows)) for start in range(0, rows * len(batches), rows)]


class TrainingStep:
    """Give an update what `StepContext` promises, from the run's state and data.

    Attributes:
        experiment: the chosen components and settings.
        stage: the current stage.
        loss: the chosen loss.
        drawn: reals drawn in this iteration so far, over all ranks.
    """

    def __init__(
        self,
        experiment: Experiment,
        state: TrainState,
        stage: Stage,
        sampler: Source,
        alpha: Mapping[str, Tensor],
        guard: Guard | None = None,
        compiler: Compiled | None = None,
    ) -> None:
        self.experiment = experiment
        self.stage = stage
        self.loss = experiment.loss
        self.drawn = 0
        self._state = state
        self._sampler = sampler
        self._alpha = alpha
        self._guard = guard
        self._compiler = compiler

    @property
    def images(self) -> int:
        """The clock, with what this iteration has drawn so far."""
        return self._state.images + self.drawn

    @property
    def local_batch(self) -> int:
        """Samples of a global batch that fall to this rank."""
        return len(range(distributed.rank(), self.stage.batch_size, distributed.world_size()))

    def reals(self) -> Reals:
        """Draw the next batch of the data; see `StepContext.reals`."""
        images, labels = self._sampler.batch(self.images, self.stage.batch_size)
        self.drawn += self.stage.batch_size
        images = images_from_uint8(self._local(images), torch.get_default_dtype())
        labels = self._local(labels) if labels is not None else None
        alpha = self._alpha.get("reals")
        if alpha is not None:
            pair, factor, channels = self.experiment.image_resampling, self.stage.factor, self.stage.image_channels
            images = fade_reals(images, factor, alpha, pair.up(channels, factor), pair.down(channels, factor))
        return Reals(images, labels)

    def latents(self, stream: str, count: int | None = None) -> Tensor:
        """Draw a batch of latents; see `StepContext.latents`."""
        generator = torch_generator(self.experiment.seed, "latents", stream, *self._state.stream(self.drawn))
        rows = self.stage.batch_size if count is None else count
        return self._local(torch.randn(rows, self.experiment.latent_size, generator=generator))

    def uniform(self, stream: str) -> Tensor:
        """Draw mixing weights; see `StepContext.uniform`."""
        generator = torch_generator(self.experiment.seed, "uniform", stream, *self._state.stream(self.drawn))
        return self._local(torch.rand(self.stage.batch_size, generator=generator))

    def due(self, penalties: Sequence[Penalty]) -> tuple[Penalty, ...]:
        """Return the penalties that the next update of D adds; see `StepContext.due`."""
        update = self._state.discriminator_updates
        return tuple(penalty for penalty in penalties if update % penalty.every == 0)

    def minimise(
        self, optimizer: str, net: str, terms: Terms, part: Part, *, inference: bool = False
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Take one optimizer step that makes the sum of the terms smaller; see `StepContext.minimise`."""
        state = self._state
        if net == "discriminator":
            # Before anything can fail: an update that is dropped has had its turn.
            state.discriminator_updates += 1
        moving, still = state.network(net), state.network("discriminator" if net == "generator" else "generator")
        _require_grad(still, False)
        _require_grad(moving, True)
        chosen, scaler = state.optimizers[optimizer], state.scalers[net]
        _forget_gradients(chosen)
        if inference:
            still.eval()
        losses, kept = self._differentiated(net, terms, part, scaler)
        if inference:
            still.train()
        if distributed.world_size() > 1:
            gradients = [param.grad for param in moving.parameters() if param.grad is not None]
            distributed.average([*gradients, *losses.values(), *float_buffers(moving, still)])
        scaler.unscale_(chosen)
        try:
            if self._guard is not None:
                self._guard.check(net, losses, total(losses), moving, scaler)
            scaler.step(chosen)
        finally:
            scaler.update()
        return losses, kept

    def _differentiated(self, net: str, terms: Terms, part: Part, scaler: torch.amp.GradScaler) -> Differentiated:
        """Leave the gradient of the terms' (scaled) sum in the parameters; what `minimise` returns."""
        count = self.experiment.micro_batches(self.stage, self.local_batch)
        factor = None
        if count > 1 or scaler.is_enabled():
            factor = scaler.scale(torch.full((), 1 / count, device=self._state.device))
        losses, kept = [], []
        for piece in microbatches.sliced(part, count):
            work = Work(net, terms, piece, self._alpha, factor)
            compiler = self._compiler
            its_losses, its_kept = self._backward(work) if compiler is None else compiler(work, self._backward)
            losses.append(its_losses)
            kept.append(its_kept)
        if count == 1:
            return losses[0], kept[0]
        return microbatches.averaged(losses), microbatches.joined(kept)

    def _backward(self, work: Work) -> Differentiated:
        with self.experiment.autocast(self._state.device, work.precision):
            losses, kept = work.terms(*players(self.experiment, self._state, work.alpha), work.part)
        torch.autograd.backward(total(losses) if work.factor is None else total(losses) * work.factor)
        return _detached(losses), _detached(kept)

    def _local(self, batch: Tensor) -> Tensor:
        own = batch[distributed.rank() :: distributed.world_size()]
        return own.to(self._state.device, non_blocking=True)


def players(
    experiment: Experiment, state: TrainState, alpha: Mapping[str, Tensor]
) -> tuple[GeneratorCall, DiscriminatorCall]:
    """Both networks as `terms` know them: at an alpha, and the discriminator behind the augmentation."""

    def generator(latents: Tensor, labels: Tensor | None = None) -> Tensor:
        images: Tensor = state.generator(latents, labels, alpha.get("generator"))
        return images

    return generator, _Discriminator(experiment, state, alpha.get("discriminator"))


class _Discriminator:
    def __init__(self, experiment: Experiment, state: TrainState, alpha: Tensor | None) -> None:
        self._augmentation = experiment.augmentation
        self._net = state.discriminator
        self._alpha = alpha
        # An augmentation's random numbers would not be those that each batch alone would have drawn.
        self.separates_batches = self._augmentation is None and self._net.separates_batches()

    def __call__(self, images: Tensor, labels: Tensor | None = None) -> Scores:
        if self._augmentation is not None:
            images = self._augmentation(images)
        scores: Scores = self._net(images, labels, self._alpha)
        return scores


def _require_grad(net: Growing, value: bool) -> None:
    for param in net.weights():
        param.requires_grad_(value)


def _forget_gradients(optimizer: torch.optim.Optimizer) -> None:
    """`optimizer.zero_grad()`; torch's own without the profiler's marks, which take longer than the rest."""
    if type(optimizer).zero_grad is not torch.optim.Optimizer.zero_grad:
        return optimizer.zero_grad()
    for group in optimizer.param_groups:
        for param in group["params"]:
            param.grad = None


def total(losses: Mapping[str, Tensor]) -> Tensor:
    """The sum of 0-dim tensors."""
    return torch.stack(list(losses.values())).sum()


def mean_of_each(losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what an update's `step` returned as 0-dim tensors: of what it computed several times, the mean."""
    return {tag: value if value.dim() == 0 else value.mean() for tag, value in losses.items()}


def _detached(tensors: Mapping[str, Any]) -> dict[str, Tensor]:
    return {name: tensor.detach() for name, tensor in tensors.items()}

"""Generator penalties in a training step: which are due, what they look at, and the terms that they add to G's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pggan_kit.components import DiscriminatorCall, Fakes, GeneratorPenalty, TensorBatch, Terms
from pggan_kit.errors import ConfigError
from pggan_kit.growth.networks import Generator, Synthesis
from pggan_kit.layers.derivatives import expect_second_derivatives

NOISE = "generator penalties: noise"
"""Name of the penalties' noise (N, C, h, w) among the tensors of a batch."""

FACTOR = "generator penalties: factor of "
MEMORY = "generator penalties: memory of "
"""Beginnings of the names of their numbers, 0-dim, among the tensors of a batch."""

MEASURED = "generator penalties: measured "
"""Beginning of the names, among the tensors that terms keep, of the numbers (N,) that penalties measure."""


class DueGeneratorPenalty(NamedTuple):
    """A generator penalty that an update of G adds.

    Attributes:
        name: Name of its term.
        penalty: The penalty.
    """

    name: str
    penalty: GeneratorPenalty


def find_due_penalties(penalties: Sequence[GeneratorPenalty], update: int) -> tuple[DueGeneratorPenalty, ...]:
    """Return the penalties that are due in the `update`-th update of G in its stage, with the names of their terms.

    A term has its penalty's class's name, and `PathLength_2` for a second one of a class.
    """
    due = []
    seen: dict[str, int] = {}
    for penalty in penalties:
        name = type(penalty).__name__
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:
            name = f"{name}_{seen[name]}"
        if update % penalty.every == 0:
            due.append(DueGeneratorPenalty(name, penalty))
    return tuple(due)


class RecordingGenerator:
    """The generator as terms call it, which keeps the fakes of the first call through which gradients flow.

    Args:
        net: The generator.
        alpha: 0-dim, the new path's share; None for all of it.
    """

    def __init__(self, net: Generator, alpha: Tensor | None) -> None:
        self._net = net
        self._alpha = alpha
        self._latents: Tensor | None = None
        self._labels: Tensor | None = None
        self._synthesis: Synthesis | None = None

    def __call__(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return images (N, C, h, w) of latents (N, Z) and labels (N,) or None."""
        if not torch.is_grad_enabled() or self._synthesis is not None:
            return self._draw(latents, labels)
        latents = latents.detach().requires_grad_(True)
        with expect_second_derivatives():
            self._synthesis = self._net.synthesise(latents, labels, self._alpha, record=True)
        self._latents = latents
        if self._net.architecture.conditional:
            self._labels = labels
        return self._synthesis.images

    def _draw(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        images: Tensor = self._net(latents, labels, self._alpha)
        return images

    def make_fakes(self, noise: Tensor | None, memory: Tensor | None) -> Fakes:
        """Return the fakes for a penalty.

        Raises:
            ConfigError: There are none.
        """
        if self._synthesis is None or self._latents is None:
            raise ConfigError(
                "train.generator_penalties: train.update minimises G's terms without a call of G through which "
                "gradients flow, so penalties have no fakes to look at; leave them out, or choose another update"
            )
        return Fakes(
            images=self._synthesis.images,
            latents=self._latents,
            labels=self._labels,
            styles=self._synthesis.styles,
            features=self._synthesis.features,
            stage_images=self._net.list_stage_images(self._synthesis.features),
            noise=noise,
            memory=memory,
            generator=self._draw,
        )


def compute_penalised_terms(
    terms: Terms,
    G: RecordingGenerator,
    D: DiscriminatorCall,
    batch: TensorBatch,
    due: Sequence[DueGeneratorPenalty],
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return what `terms` returns, with the terms of the penalties, and what they measured.

    Raises:
        ConfigError: There are no fakes, or a term has the name of a penalty's.
    """
    losses, kept = terms(G, D, batch)
    losses = dict(losses)
    kept = dict(kept)

    # Each penalty sees the fakes of this batch, and may keep what it measured.
    for name, penalty in due:
        if name in losses:
            raise ConfigError(
                f"train.generator_penalties: G's terms have a {name} already, which is the name of a penalty's term: "
                "rename one of them"
            )
        fakes = G.make_fakes(batch[NOISE] if penalty.needs_noise else None, batch.get(MEMORY + name))
        with expect_second_derivatives():
            value = penalty(fakes)
        factor = batch[FACTOR + name]
        assert factor is not None
        losses[name] = factor * value
        if fakes.measured:
            kept[MEASURED + name] = torch.stack(fakes.measured).mean(0)
    return losses, kept


def generator_gradients(objective: Tensor, source: Tensor) -> Tensor:
    """Return the gradient of a 0-dim objective of fakes with respect to their styles or latents, itself differentiable.

    Every generator penalty takes its gradients here, so that the core can change how they are computed for all of them.

    Args:
        objective: A sum over samples, for instance `(fakes.images * fakes.noise).sum()`.
        source: `fakes.styles` (N, L, W) or `fakes.latents` (N, Z).
    """
    (gradient,) = torch.autograd.grad(objective, source, create_graph=True)
    return gradient


def take_measured(kept: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take what penalties measured out of the kept tensors, and return its mean (0-dim) by the name of the term."""
    names = [name for name in kept if name.startswith(MEASURED)]
    return {name.removeprefix(MEASURED): kept.pop(name).mean() for name in names}


def remember_measured(due: Sequence[DueGeneratorPenalty], measured: Mapping[str, Tensor]) -> None:
    """Give each penalty the mean of what it measured, once its update is done."""
    for name, penalty in due:
        if name in measured:
            remember: Callable[[Tensor], Any] = penalty.remember  # type: ignore[attr-defined]
            remember(measured[name])


def unscale_terms(losses: Mapping[str, Tensor], due: Sequence[DueGeneratorPenalty]) -> dict[str, Tensor]:
    """Return the terms as they are logged: without the factor `every` of lazy penalties.

    That factor stands for the updates that leave a penalty out.
    """
    logged = dict(losses)
    for name, penalty in due:
        if penalty.every > 1:
            logged[name] = logged[name] / penalty.every
    return logged

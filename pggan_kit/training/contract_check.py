"""Find the component that breaks its contract where a step has failed.

An error in a step arises where a wrong value is used, not where it was returned. Nothing is checked while all goes
well, but for the terms and tags of a step: these checks cost next to nothing, and what they find raises no error of its
own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from pggan_kit.components import Scores
from pggan_kit.errors import first_line
from pggan_kit.plugin_host.failures import Components, name_component
from pggan_kit.plugin_host.hooks import describe_wrong_tag
from pggan_kit.runs.run import Run
from pggan_kit.training.step import UpdateContext, describe_wrong_terms, make_network_calls

CORE_GROUPS = ("Progress", "Timing", "Resources", "Metrics")
"""Groups of the tags under which the core logs what it measures."""

MOST_ROWS = 8
"""Maximum number of samples that the components are tried with."""


def describe_wrong_report(report: object) -> str | None:
    """Return what is wrong with what an update's `step` returned, as the end of a sentence; None where nothing is."""
    if not isinstance(report, Mapping):
        return f"step() returned a {type(report).__name__}, and must return a dict of tensors by tag"
    for tag, value in report.items():
        wrong_tag = describe_wrong_tag(tag)
        if wrong_tag is not None:
            return f"step() returned {wrong_tag}, such as Loss/mine"
        if tag.partition("/")[0] in CORE_GROUPS:
            return f"step() returned the tag {tag!r}, which is in a group of the core: choose another, such as Loss"
        if not isinstance(value, Tensor) or value.dim() > 1:
            return f"step() returned {_describe(value)} under {tag!r}, and must return tensors that are 0-dim or (k,)"
    return None


def describe_breach(run: Run, context: UpdateContext) -> str | None:
    """Return which component breaks its contract, and how; None where all that are tried keep it.

    The networks, the loss and its penalties are called by themselves, one after the other, on random images. Training
    cannot go on afterwards.

    Args:
        run: The run, in which a step has failed.
        context: The context of that step.
    """
    trial = _Trial(run, context)
    checks = [trial.check_generator]
    # Beside an encoder it is up to the update what D is given, such as pairs of images and latents.
    if run.state.encoder is None:
        checks += [trial.check_discriminator, trial.check_loss, trial.check_penalties]
    for check in checks:
        try:
            breach = check()
        except Exception:
            # What a component raises by itself has its own name and line in the message of the step's error.
            return None
        if breach is not None:
            return breach
    return None


class _Trial:
    """One call of each component, on the same few samples."""

    def __init__(self, run: Run, context: UpdateContext) -> None:
        self.experiment = run.experiment
        self.components: Components = run.hooks.components
        self.stage = context.stage
        self.G, self.D = make_network_calls(run.experiment, run.state, context.alpha)
        self.rows = min(MOST_ROWS, context.local_batch)

        # A small batch at the size of the stage, with classes in turn.
        stage = self.stage
        device = run.device
        self.latents = torch.randn(self.rows, run.experiment.latent_size, device=device)
        shape = (self.rows, stage.image_channels, stage.height, stage.width)
        self.images = torch.rand(shape, device=device) * 2 - 1
        self.labels = None
        if stage.classes:
            self.labels = torch.arange(self.rows, device=device) % stage.classes

    def check_generator(self) -> str | None:
        """Return what is wrong with the generator's images."""
        images = self.G(self.latents, self.labels)
        if isinstance(images, Tensor) and images.shape == self.images.shape:
            return None
        expected = tuple(self.images.shape)
        owner = name_component(self.experiment.architecture, self.components)
        return f"{owner}: the generator made {_describe(images)}, and must make images {expected} at {self.stage.size}"

    def check_discriminator(self) -> str | None:
        """Return what is wrong with the discriminator's scores."""
        try:
            self.D(self.images, self.labels)
        except TypeError as error:
            return f"{name_component(self.experiment.architecture, self.components)}: {error}"
        return None

    def check_loss(self) -> str | None:
        """Return what is wrong with the loss's terms, for either network."""
        loss = self.experiment.loss
        owner = name_component(loss, self.components)
        real = self.D(self.images, self.labels)
        fake = self.D(self.G(self.latents, self.labels), self.labels)
        wrong = describe_wrong_terms(loss.discriminator(real, fake), "discriminator()")
        if wrong is not None:
            return f"{owner}: {wrong}"

        # A loss that does not say so gets no scores of reals for G.
        given = real if loss.needs_real else None
        try:
            terms: object = loss.generator(fake, given)
        except Exception as error:
            if given is None and _works(lambda: loss.generator(fake, real)):
                return (
                    f"{owner}: generator() reads the scores of reals, which it is given only if needs_real is True "
                    f"({type(error).__name__}: {first_line(error)}): set needs_real = True in the class"
                )
            raise
        wrong = describe_wrong_terms(terms, "generator()")
        if wrong is not None:
            return f"{owner}: {wrong}"
        return None

    def check_penalties(self) -> str | None:
        """Return what is wrong with the first penalty that is no 0-dim tensor."""
        fake = self.G(self.latents, self.labels).detach()
        mix = torch.rand(self.rows, device=fake.device)

        def critic(images: Tensor) -> Scores:
            return self.D(images, self.labels)

        for penalty in self.experiment.loss.penalties:
            value: object = penalty(critic, self.images, fake, critic(self.images), critic(fake), mix)
            if not isinstance(value, Tensor) or value.dim() > 0:
                owner = name_component(penalty, self.components)
                return f"{owner}: the penalty returned {_describe(value)}, and must return a 0-dim tensor"
        return None


def _works(call: Callable[[], Any]) -> bool:
    """Return whether a call raises nothing."""
    try:
        call()
    except Exception:
        return False
    return True


def _describe(value: object) -> str:
    """Return what a value is, for a message: `a tensor (32,)` or `a float`."""
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)}"
    return f"a {type(value).__name__}"

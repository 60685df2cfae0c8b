"""Test that generator penalties keep their contract."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from pggan_kit.components import Fakes, GeneratorPenalty, Resampling
from pggan_kit.growth.networks import Generator
from pggan_kit.layers.resampling import Area
from pggan_kit.schedule import Stage
from pggan_kit.testing.penalty_checks import (
    MEAN_TOLERANCE,
    require_finite_number,
    require_finite_where_flat,
    require_gradients_to_weights,
    require_unweighted,
)
from pggan_kit.testing.suite import StepSuite
from pggan_kit.testing.support import check_gradients, draw_noise, make_stages, measure_difference, require
from pggan_kit.testing.toys import ToyArchitecture
from pggan_kit.training.generator_penalties import RecordingGenerator

WIDTH = 2
"""Number of maps, and width of the styles."""

LATENTS = 3
"""Size of the latents."""


class Features(NamedTuple):
    """Features of the toy: maps (N, 2, h, w), styles (N, L, 2), and the image (N, C, h, w) of the stages so far."""

    maps: Tensor
    styles: Tensor
    image: Tensor


class StyledToyArchitecture(ToyArchitecture):
    """The toy with a small styled generator, which makes an image at each stage: smooth, and nowhere linear."""

    images_at_each_stage = True

    def generator_stem(self, latent_size: int, stage: Stage) -> nn.Module:
        """Return a stem that maps latents to styles first."""
        return _Stem(latent_size, stage)

    def generator_block(self, previous: Stage, stage: Stage, resampling: Resampling) -> nn.Module:
        """Return a 3x3 convolution of maps that the block's own style scales, and tanh."""
        return _Block(stage, resampling)

    def to_image(self, stage: Stage) -> nn.Module:
        """Return a module that reads the image of the stages so far."""
        return _StageImage()


class _Stem(nn.Module):
    def __init__(self, latent_size: int, stage: Stage) -> None:
        super().__init__()
        self.mapping = nn.Linear(latent_size, WIDTH)
        self.constant = nn.Parameter(torch.randn(WIDTH, stage.height, stage.width))
        self.own_image = nn.Conv2d(WIDTH, stage.image_channels, 1)

    def map_latents(self, latents: Tensor, labels: Tensor | None, blocks: int, training: bool) -> Tensor:
        styles: Tensor = self.mapping(latents).tanh()
        return styles[:, None].expand(-1, blocks + 1, -1)

    def begin(self, styles: Tensor) -> Features:
        maps = (self.constant * (1 + styles[:, 0, :, None, None])).tanh()
        return Features(maps, styles, self.own_image(maps))

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Features:
        return self.begin(self.map_latents(latents, labels, 0, self.training))


class _Block(nn.Module):
    def __init__(self, stage: Stage, resampling: Resampling) -> None:
        super().__init__()
        self.up = resampling.up(WIDTH, stage.factor)
        self.up_image = resampling.up(stage.image_channels, stage.factor)
        self.conv = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.own_image = nn.Conv2d(WIDTH, stage.image_channels, 1)
        self.layer = stage.index

    def forward(self, features: Features) -> Features:
        scaled = features.maps * (1 + features.styles[:, self.layer, :, None, None])
        maps = self.conv(self.up(scaled)).tanh()
        return Features(maps, features.styles, self.up_image(features.image) + self.own_image(maps))


class _StageImage(nn.Module):
    def forward(self, features: Features) -> Tensor:
        return features.image


class GeneratorPenaltySuite(StepSuite):
    """Generator penalties, on a small smooth generator with styles and an image at each stage.

    Attributes:
        image_channels: Channel counts to try: gray and colour.
        second_order: Whether the penalty's gradient to G's weights is to be differentiable again.
    """

    kind = "generator_penalties"
    image_channels: Sequence[int] = (1, 3)
    second_order = True

    def choose_arguments(self, component: Any) -> dict[str, Any]:
        """Return the component as the one penalty of a generator that has all that penalties may ask for."""
        return {"generator_penalties": [component], "architecture": StyledToyArchitecture()}

    def make_generator(self, channels: int = 1, stages: int = 2, fading: bool = False) -> Generator:
        """Return a generator of one or two stages, 2x2 and 4x4, in float64."""
        grown = make_stages((2, 4)[:stages], channels)
        net = Generator(StyledToyArchitecture(), Area(), Area(), 0, LATENTS, grown[0])
        for stage in grown[1:]:
            net.grow(stage, fading)
        return net.double()

    def make_fakes(self, penalty: GeneratorPenalty, net: Generator, count: int = 4, rows: slice = slice(None)) -> Fakes:
        """Return fakes of fixed latents and noise.

        Args:
            penalty: The penalty.
            net: The generator, whose alpha is one half where it has an old path.
            count: Samples in the batch.
            rows: The samples of the batch that are drawn.
        """
        alpha = None if net.bridge is None else torch.tensor(0.5, dtype=torch.float64)
        recorder = RecordingGenerator(net, alpha)
        images = recorder(draw_noise(count, LATENTS, seed=2, dtype=torch.float64)[rows])
        noise = draw_noise(count, *images.shape[1:], seed=3, dtype=torch.float64)[rows]
        memory = getattr(penalty, "memory", None)
        return recorder.make_fakes(noise if penalty.needs_noise else None, memory)

    def value(self, penalty: GeneratorPenalty, net: Generator, count: int = 4, rows: slice = slice(None)) -> Tensor:
        """Return the penalty of fixed fakes; see `make_fakes`."""
        return penalty(self.make_fakes(penalty, net, count, rows))

    def test_value(self) -> None:
        """Require one finite number at each stage and in a fade, for gray and colour and any batch size."""
        for channels in self.image_channels:
            for stages, fading in ((1, False), (2, False), (2, True)):
                net = self.make_generator(channels, stages, fading)
                for count in (2, 4):
                    value = self.value(self.make(), net, count)
                    where = f"for a batch of {count} with {channels} channels, at stage {stages - 1}"
                    require_finite_number(value, where)

    def test_gradients_flow(self) -> None:
        """Require gradients to the generator's weights."""
        net = self.make_generator()
        value = self.value(self.make(), net)
        require_gradients_to_weights(value, net, "G")

    def test_gradcheck(self) -> None:
        """Require gradients to the generator's weights, of first and second order, to equal finite differences."""
        penalty = self.make()
        net = self.make_generator()
        names = ["stem.mapping.weight", "stem.constant", "stem.own_image.weight", "blocks.1.own_image.weight"]
        weights = [dict(net.named_parameters())[name].detach().clone().requires_grad_(True) for name in names]

        class Penalised(nn.Module):
            def __init__(self, suite: GeneratorPenaltySuite) -> None:
                super().__init__()
                self.net = net
                self.suite = suite

            def forward(self) -> Tensor:
                return self.suite.value(penalty, self.net)

        def penalise(*tensors: Tensor) -> Any:
            replaced = {f"net.{name}": tensor for name, tensor in zip(names, tensors, strict=True)}
            value = functional_call(Penalised(self), replaced, ())
            # A penalty may not depend on every weight, which gradcheck requires of its inputs.
            return value + 0 * sum(tensor.sum() for tensor in tensors)

        check_gradients(penalise, weights, "the penalty as a function of G's weights", self.second_order)

    def test_is_a_mean(self) -> None:
        """Require the mean of the penalties of a batch's slices to be that of the batch.

        Ranks and micro-batches take every second sample, so sample i and i + N / 2 of a batch stay together.
        """
        penalty = self.make()
        net = self.make_generator()
        whole = self.value(penalty, net)
        slices = torch.stack([self.value(penalty, net, rows=slice(start, None, 2)) for start in range(2)]).mean()
        require(
            measure_difference(slices, whole) <= MEAN_TOLERANCE,
            f"the penalty of a batch is {whole.item():.4g}, and the mean over its slices is {slices.item():.4g}: it "
            "must be a mean over samples, or over pairs of sample i and i + N / 2",
        )

    def test_leaves_weight_to_the_core(self) -> None:
        """Require an unweighted term: the core multiplies it by `weight` and `every`."""
        net = self.make_generator()
        require_unweighted(self.make, lambda penalty: self.value(penalty, net), "the core")

    def test_flat_generator(self) -> None:
        """Require a finite value and gradient where all images are the same: a root has no derivative at 0."""
        net = self.make_generator()
        with torch.no_grad():
            for param in net.parameters():
                param.zero_()
        value = self.value(self.make(), net)
        require_finite_where_flat(value, net, "generator")

    def test_memory(self) -> None:
        """Require a penalty with a `memory` to change it in `remember` alone, and to measure a number a sample."""
        # A penalty without a memory measures nothing.
        penalty: Any = self.make()
        before = getattr(penalty, "memory", None)
        fakes = self.make_fakes(penalty, self.make_generator())
        penalty(fakes)
        if before is None:
            require(not fakes.measured, "the penalty measures something and has no `memory` in which to keep it")
            return

        # One with a memory: measured by a call, and changed by `remember` alone.
        require(isinstance(before, Tensor) and before.dim() == 0, "memory is no 0-dim tensor")
        require(
            bool(fakes.measured) and all(numbers.shape == (4,) for numbers in fakes.measured),
            "the penalty has a `memory`, and passes no numbers (N,) to fakes.measure",
        )
        require(penalty.memory is before, "a call of the penalty changes its memory, which `remember` alone may")
        penalty.remember(fakes.measured[0].mean().float())
        require(
            penalty.memory.dim() == 0 and bool(penalty.memory != before), "remember() does not change the 0-dim memory"
        )

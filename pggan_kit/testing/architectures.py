"""Test that architectures keep their contract."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from pggan_kit.components import BatchStatistic, Resampling, Scores, StyledStem
from pggan_kit.errors import PluginError
from pggan_kit.growth.fade import ENCODER, NETS
from pggan_kit.growth.networks import Discriminator, Encoder, Generator, GrowingNetwork
from pggan_kit.layers.batches import declare_batches
from pggan_kit.layers.resampling import Area
from pggan_kit.schedule import Stage
from pggan_kit.testing.suite import StepSuite
from pggan_kit.testing.support import (
    are_equal,
    copy_weights,
    draw_noise,
    make_labels,
    make_stages,
    measure_difference,
    measure_influence,
    perturb,
    require,
    require_gradients,
    require_sample_by_sample,
)

ZERO = torch.zeros(())
HALF = torch.tensor(0.5)
ONE = torch.ones(())

OTHER_CLASSES = 3
"""Number of classes of labels that an unconditional architecture must ignore."""

FORMAT_TOLERANCE = 1e-4
"""Tolerance between outputs in the two memory formats, relative to the largest value."""


class ArchitectureSuite(StepSuite):
    """Both networks at several sizes, growing; `make` should return a narrow one (a handful of channels).

    Attributes:
        geometries: Sizes of the stages to grow through.
        image_channels: Channel counts to try: gray and colour.
        classes: Number of classes to condition on, or 0.
        batch_sizes: Batch sizes that the networks must take.
        latent_size: Size Z of the latents.
        tolerance: Tolerance between two ways to compute the same, relative to the largest value.
    """

    kind = "architectures"
    geometries: Sequence[Sequence[int | Sequence[int]]] = ((4, 8, 16), (5, 15), ((4, 6), (8, 12)))
    image_channels: Sequence[int] = (1, 3)
    classes = 0
    batch_sizes: Sequence[int] = (1, 2, 3, 6)
    latent_size = 8
    tolerance = 1e-5

    def choose_arguments(self, component: Any) -> dict[str, Any]:
        """Return the component as `train.architecture`."""
        return {"architecture": component}

    def resampling(self) -> Resampling:
        """Return the pair for features; the one for images is always nearest up, area down."""
        return Area()

    def grow_networks(
        self, stages: Sequence[Stage], bridged: bool = False, seed: int = 0
    ) -> tuple[Generator, Discriminator]:
        """Return new networks, grown to the last of the stages.

        Args:
            stages: The stages to grow through.
            bridged: Whether they have their old paths.
            seed: Seed of their weights.
        """
        arguments = (self.make(), self.resampling(), Area(), seed)
        try:
            generator = Generator(*arguments, self.latent_size, stages[0])
            discriminator = Discriminator(*arguments, stages[0])
            # Only the last growth may be within a fade.
            for stage in stages[1:]:
                keeps_old_path = bridged and stage is stages[-1]
                generator.grow(stage, keeps_old_path)
                discriminator.grow(stage, keeps_old_path)
        except PluginError as error:
            raise AssertionError(str(error)) from error
        return generator, discriminator

    def iterate_growths(self) -> Iterator[tuple[Stage, ...]]:
        """Yield all stages of each geometry, up to each stage, in gray and colour."""
        for sizes in self.geometries:
            for channels in self.image_channels:
                stages = make_stages(sizes, channels, self.classes)
                for end in range(1, len(stages) + 1):
                    yield stages[:end]

    def draw_latents(self, count: int) -> tuple[Tensor, Tensor | None]:
        """Return the input of G: latents (count, Z) and labels."""
        return draw_noise(count, self.latent_size), make_labels(self.classes, count)

    def test_shapes(self) -> None:
        """Require images and scores of the right shape and type at every stage, channel count and batch size."""
        for stages in self.iterate_growths():
            fades = len(stages) > 1
            generator, discriminator = self.grow_networks(stages, bridged=fades)
            alphas = (None, HALF) if fades else (None,)
            for count in self.batch_sizes:
                for alpha in alphas:
                    self._check_shapes(generator, discriminator, stages[-1], count, alpha)

    def _check_shapes(
        self, generator: Generator, discriminator: Discriminator, stage: Stage, count: int, alpha: Tensor | None
    ) -> None:
        where = f"at {stage.size} with {stage.image_channels} channels and a batch of {count}"

        # Images.
        latents, labels = self.draw_latents(count)
        images = generator(latents, labels, alpha)
        wanted = (count, stage.image_channels, stage.height, stage.width)
        require(
            tuple(images.shape) == wanted and images.dtype == torch.float32,
            f"G's images {where} are {images.dtype} {tuple(images.shape)}, not float32 {wanted}",
        )

        # Scores.
        scores = _judge(discriminator, images, labels, alpha)
        if scores.class_logits is not None:
            shape = tuple(scores.class_logits.shape)
            require(
                shape == (count, self.classes),
                f"D's class_logits {where} have shape {shape}, not {(count, self.classes)}",
            )

    def test_gradients_flow(self) -> None:
        """Require a gradient for every parameter of both networks, bridges included, within a fade."""
        for stages in self.iterate_growths():
            generator, discriminator = self.grow_networks(stages, bridged=True)
            perturb(generator)
            perturb(discriminator)

            # All outputs enter the sum that is differentiated.
            alpha = HALF if len(stages) > 1 else None
            torch.manual_seed(0)
            latents, labels = self.draw_latents(4)
            scores = discriminator(generator(latents, labels, alpha), labels, alpha)
            total = scores.score.sum()
            if scores.class_logits is not None:
                total = total + (scores.class_logits * draw_noise(*scores.class_logits.shape)).sum()
            total.backward()

            require_gradients(generator, f"the generator at {stages[-1].size}")
            require_gradients(discriminator, f"the discriminator at {stages[-1].size}")

    def test_encoder(self) -> None:
        """Require codes (N, K) of an encoder, where there is `encoder_head`, and a gradient for all its parameters."""
        if not hasattr(self.make(), "encoder_head"):
            return
        for stages in self.iterate_growths():
            fades = len(stages) > 1
            encoder = self._grow_encoder(stages)
            perturb(encoder)

            # A batch at the size that it has grown to.
            newest = stages[-1]
            images = draw_noise(4, newest.image_channels, newest.height, newest.width)
            try:
                codes = encoder(images, HALF if fades else None)
            except TypeError as error:
                raise AssertionError(f"at {newest.size} {error}") from error
            require(
                codes.dtype == torch.float32,
                f"the encoder's codes at {newest.size} are {codes.dtype}, not float32",
            )

            # Each parameter takes part in the codes.
            (codes * draw_noise(*codes.shape)).sum().backward()
            require_gradients(encoder, f"the encoder at {newest.size}")

    def _grow_encoder(self, stages: Sequence[Stage]) -> Encoder:
        """Return an encoder that has grown to the last of the stages, in its fade."""
        encoder = Encoder(self.make(), self.resampling(), Area(), 0, self.latent_size, stages[0])
        for stage in stages[1:]:
            encoder.grow(stage, bridged=stage is stages[-1])
        return encoder

    def test_function_at_alpha_0(self) -> None:
        """Require grown networks to compute at alpha 0 what they did before, or `preserves_function` to be False."""
        preserves = self.make().preserves_function
        for stages in self.iterate_growths():
            if len(stages) == 1:
                continue

            # The change of one network is enough to break what is promised.
            changes = self._measure_changes(stages)
            where = f"grown to {stages[-1].size}, at alpha 0"
            if not preserves:
                require(
                    max(changes.values()) > self.tolerance,
                    f"preserves_function is False, but {where} both networks compute what they did before",
                )
                continue
            for net, change in changes.items():
                require(
                    change <= self.tolerance,
                    f"preserves_function is True, but {where} the {net}'s output differs from what it was "
                    f"before growth by {change:.2g}",
                )

    @torch.no_grad()
    def _measure_changes(self, stages: Sequence[Stage]) -> dict[str, float]:
        """Return how much each network's output changes as it grows to the last stage, at alpha 0."""
        stage = stages[-1]
        generator, discriminator = self.grow_networks(stages[:-1])
        for net in (generator, discriminator):
            perturb(net)
            net.eval()
        latents, labels = self.draw_latents(4)
        images = draw_noise(4, *_image_shape(stage), seed=1).clamp(-1, 1)

        # The networks as they were, between images of the new size.
        pair = Area()
        torch.manual_seed(0)
        old_images = pair.up(stage.image_channels, stage.factor)(generator(latents, labels))
        torch.manual_seed(0)
        old_scores = discriminator(pair.down(stage.image_channels, stage.factor)(images), labels).score

        for net in (generator, discriminator):
            net.grow(stage, True)
            net.eval()
        torch.manual_seed(0)
        new_images = generator(latents, labels, ZERO)
        torch.manual_seed(0)
        new_scores = discriminator(images, labels, ZERO).score
        return {
            "generator": measure_difference(new_images, old_images),
            "discriminator": measure_difference(new_scores, old_scores),
        }

    def test_function_at_alpha_1(self) -> None:
        """Require the old path not to count at alpha 1, and a network without it to be one that never had it."""
        for stages in self.iterate_growths():
            if len(stages) == 1:
                continue
            latents, labels = self.draw_latents(3)
            images = draw_noise(3, *_image_shape(stages[-1]))
            bridged = self.grow_networks(stages, bridged=True)
            plain = self.grow_networks(stages)
            for net, other, given in zip(bridged, plain, (latents, images), strict=True):
                net.eval()
                other.eval()
                self._check_end_of_fade(net, other, given, labels, f"the {net.kind} at {stages[-1].size}")

    def _check_end_of_fade(
        self,
        net: GrowingNetwork,
        plain: GrowingNetwork,
        given: Tensor,
        labels: Tensor | None,
        where: str,
    ) -> None:
        """Compare a network that has an old path with itself without it, and with one that never had it."""
        # Without alpha, the old path is not computed.
        outputs = []
        for alpha in (ONE, None):
            torch.manual_seed(0)
            outputs.append(_as_tensor(net(given, labels, alpha)))
        change = measure_difference(*outputs)
        require(change <= self.tolerance, f"at alpha 1 the old path still changes {where}, by {change:.2g}")

        net.end_fade()
        require(
            are_equal(copy_weights(net), copy_weights(plain)),
            f"{where} without its old path is not what a hard switch makes: the modules' initial weights depend "
            "on whether there is a bridge, or something of the bridge stays behind",
        )

    @torch.no_grad()
    def test_batches_stay_apart(self) -> None:
        """Require an architecture that `separates_batches` to score two batches in one call as it scores each alone."""
        stages = make_stages(self.geometries[0], self.image_channels[0], self.classes)[:2]
        _, discriminator = self.grow_networks(stages, bridged=True)
        if not discriminator.separates_batches():
            return

        for count in self.batch_sizes:
            pair = [(i + 1) * draw_noise(count, *_image_shape(stages[-1]), seed=i) for i in range(2)]
            labels = make_labels(self.classes, 2 * count)

            # Together, and then each alone.
            with declare_batches(2):
                both = discriminator(torch.cat(pair), labels, HALF)
            for images, rows in zip(pair, (slice(count), slice(count, None)), strict=True):
                own_labels = None if labels is None else labels[rows]
                change = _largest_difference(both.rows(rows), discriminator(images, own_labels, HALF))
                require(
                    change <= self.tolerance,
                    "separates_batches is True, but beside another batch the scores of one change, "
                    f"by {change:.2g} with {count} samples in each",
                )

    @torch.no_grad()
    def test_batch_statistics(self) -> None:
        """Require `batch_statistics` to declare every statistic over several samples, and no other.

        A sample's output depends on others of its batch where a statistic is computed over several, and nowhere else.
        """
        declare = getattr(self.make(), "batch_statistics", None)
        if declare is None:
            return
        for stages in self.iterate_growths():
            generator, discriminator = self.grow_networks(stages, bridged=True)
            readers: list[Discriminator | Encoder] = [discriminator]
            if hasattr(self.make(), "encoder_head"):
                readers.append(self._grow_encoder(stages))
            for count in self.batch_sizes:
                try:
                    statistics = declare(stages[-1], count)
                except ValueError:
                    continue  # the architecture refuses this batch size
                where = f"at {stages[-1].size} with {count} samples"
                _check_statistics(statistics, count, where)

                latents, _ = self.draw_latents(count)
                images = draw_noise(count, *_image_shape(stages[-1]))
                self._check_dependence(generator, latents, statistics, where)
                for reader in readers:
                    self._check_dependence(reader, images, statistics, where)

    def _check_dependence(
        self,
        net: Generator | Discriminator | Encoder,
        given: Tensor,
        statistics: Sequence[BatchStatistic],
        where: str,
    ) -> None:
        """Change all samples but the first, and check whether the first one's output changes as declared."""
        depends = measure_influence(self._bind_network(net, len(given)), given) > self.tolerance
        several = [statistic.name for statistic in statistics if statistic.net == net.kind and statistic.group > 1]
        require(
            several != [] or not depends,
            f"{where} the {net.kind}'s output of a sample depends on the others of its batch, and batch_statistics "
            "declares nothing that is computed over several",
        )
        require(
            several == [] or depends,
            f"{where} batch_statistics declares {', '.join(several)} of several samples for the {net.kind}, and no "
            "sample's output depends on the others",
        )

    def _bind_network(self, net: Generator | Discriminator | Encoder, count: int) -> Callable[[Tensor], Tensor]:
        """Return a network whose weights were moved a little, with its labels and alpha, which forgets each call."""
        perturb(net)
        before = copy_weights(net)
        labels = make_labels(self.classes, count)
        alpha = HALF if net.bridge is not None else None

        def call(batch: Tensor) -> Tensor:
            net.load_state_dict(before)  # running statistics and spectral norm's estimate move with each call
            if isinstance(net, Encoder):
                codes: Tensor = net(batch, alpha)
                return codes
            return _as_tensor(net(batch, labels, alpha))

        return call

    @torch.no_grad()
    def test_samples_stay_apart(self) -> None:
        """Require the output of a sample to depend on that sample alone: G's in inference, and both in training.

        In training an architecture may declare what it computes over several samples (`batch_statistics`), the core
        itself detects batch normalisation, and the styles of a `StyledStem` may be mixed.
        """
        stages = make_stages(self.geometries[0], self.image_channels[0], self.classes)[:2]
        generator, discriminator = self.grow_networks(stages, bridged=True)
        count = max(self.batch_sizes)
        latents, _ = self.draw_latents(count)
        images = draw_noise(count, *_image_shape(stages[-1]))

        generator.eval()
        require_sample_by_sample(
            self._bind_network(generator, count), latents, "in inference mode G's image", self.tolerance
        )

        # What is declared is compared with what is computed in `test_batch_statistics`.
        if hasattr(self.make(), "batch_statistics"):
            return
        generator.train()
        for net, given, name in ((generator, latents, "G's image"), (discriminator, images, "D's score")):
            mixes_styles = net is generator and isinstance(generator.stem, StyledStem)
            has_batch_norm = any(isinstance(module, BatchNorm) for module in net.modules())
            if not has_batch_norm and not mixes_styles:
                require_sample_by_sample(
                    self._bind_network(net, count),
                    given,
                    f"batch_statistics declares nothing, but in training mode {name}",
                    self.tolerance,
                )

    @torch.no_grad()
    def test_conditional(self) -> None:
        """Require the networks to look at labels where the architecture is `conditional`, and else to ignore them."""
        conditional = self.make().conditional
        if conditional and not self.classes:
            return

        # The same batch with other labels.
        classes = self.classes or OTHER_CLASSES
        stages = make_stages(self.geometries[0], self.image_channels[0], classes)[:2]
        generator, discriminator = self.grow_networks(stages, bridged=True)
        images = draw_noise(4, *_image_shape(stages[-1]))
        labels = torch.arange(4) % classes
        changes = {}
        for net, given in ((generator, draw_noise(4, self.latent_size)), (discriminator, images)):
            perturb(net)
            net.eval()
            outputs = []
            for its_labels in (labels, (labels + 1) % classes):
                torch.manual_seed(0)
                outputs.append(_as_tensor(net(given, its_labels, HALF)))
            changes[net.kind] = measure_difference(*outputs)

        for kind, change in changes.items():
            require(
                conditional or change <= self.tolerance,
                f"conditional is False, but with other labels the {kind}'s output changes by {change:.2g}",
            )
        require(
            not conditional or changes["generator"] > self.tolerance,
            "conditional is True, but with other labels G makes the same images",
        )

    def test_initial_weights(self) -> None:
        """Require the same weights from the same seed, others from another seed, and no shared ones."""
        stages = make_stages(self.geometries[0], self.image_channels[0], self.classes)
        first, second, other = (self.grow_networks(stages, seed=seed) for seed in (0, 0, 1))
        for net, same, different in zip(first, second, other, strict=True):
            weights = copy_weights(net)
            require(
                are_equal(weights, copy_weights(same)), f"the {net.kind}'s initial weights differ under the same seed"
            )
            require(
                not are_equal(weights, copy_weights(different)),
                f"the {net.kind}'s initial weights do not depend on the seed",
            )

            # Modules that an architecture keeps would be trained by several networks.
            shared = {id(param) for param in net.parameters()} & {id(param) for param in same.parameters()}
            require(not shared, f"two {net.kind}s share weights: the architecture must make new modules at each call")

    @torch.no_grad()
    def test_memory_formats_agree(self) -> None:
        """Require the same numbers with channels_last, and finite ones under bfloat16 autocast.

        The networks are in inference mode, since the units that dropout leaves out depend on their place in memory.
        """
        stages = make_stages(self.geometries[0], self.image_channels[0], self.classes)[:2]
        generator, discriminator = self.grow_networks(stages, bridged=True)
        latents, labels = self.draw_latents(4)
        images = draw_noise(4, *_image_shape(stages[-1]))
        for net, given in ((generator, latents), (discriminator, images)):
            net.eval()
            outputs = []
            for memory_format in (torch.contiguous_format, torch.channels_last):
                _move_to_format(net, memory_format)
                moved = given.to(memory_format=memory_format) if given.dim() == 4 else given
                torch.manual_seed(0)
                outputs.append(_as_tensor(net(moved, labels, HALF)))
            change = measure_difference(*outputs)
            require(
                change <= FORMAT_TOLERANCE,
                f"with memory format channels_last the {net.kind}'s output changes by {change:.2g}",
            )

            # The same network in a low precision.
            with torch.autocast("cpu", torch.bfloat16):
                low = _as_tensor(net(given, labels, HALF))
            require(bool(low.isfinite().all()), f"under bfloat16 autocast the {net.kind}'s output is not finite")


def _judge(discriminator: Discriminator, images: Tensor, labels: Tensor | None, alpha: Tensor | None) -> Scores:
    """Return D's scores of images; fail where its head returns something else, which the discriminator itself says."""
    try:
        scores: Scores = discriminator(images, labels, alpha)
    except TypeError as error:
        raise AssertionError(str(error)) from error
    return scores


def _check_statistics(statistics: Sequence[Any], samples: int, where: str) -> None:
    for statistic in statistics:
        require(
            isinstance(statistic, BatchStatistic) and statistic.net in (*NETS, ENCODER),
            f"batch_statistics {where} gives {statistic!r}, not a BatchStatistic of the generator, discriminator or "
            "encoder",
        )
        require(
            1 <= statistic.group <= samples,
            f"batch_statistics {where} gives {statistic.name} a group of {statistic.group}",
        )


def _largest_difference(scores: Scores, wanted: Scores) -> float:
    """Return the largest difference between scores, or between class logits where there are any."""
    change = measure_difference(scores.score, wanted.score)
    if scores.class_logits is not None and wanted.class_logits is not None:
        change = max(change, measure_difference(scores.class_logits, wanted.class_logits))
    return change


def _move_to_format(net: Any, memory_format: torch.memory_format) -> None:
    """Move a network to a memory format; typed loosely, because `Module.to` has no overload for it."""
    net.to(memory_format=memory_format)


def _image_shape(stage: Stage) -> tuple[int, int, int]:
    return stage.image_channels, stage.height, stage.width


def _as_tensor(output: Any) -> Tensor:
    """Return images as they are, and of Scores a row for each sample: its score, and its class logits if any."""
    if not isinstance(output, Scores):
        images: Tensor = output
        return images
    score = output.score[:, None]
    return score if output.class_logits is None else torch.cat([score, output.class_logits], 1)

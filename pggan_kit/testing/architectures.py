"""The suite of architectures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from pggan_kit.components import BatchStatistic, Resampling, Scores
from pggan_kit.growth.networks import Discriminator, Generator
from pggan_kit.layers.batches import side_by_side
from pggan_kit.layers.resampling import Area
from pggan_kit.schedule import Stage
from pggan_kit.testing.base import TrainedSuite
from pggan_kit.testing.support import (
    difference,
    equal,
    labels_for,
    make_stages,
    noise,
    require,
    require_gradients,
    shake,
    weights,
)

ZERO = torch.zeros(())
HALF = torch.tensor(0.5)
ONE = torch.ones(())


class ArchitectureSuite(TrainedSuite):
    """Both networks at several sizes, growing; `make` should return a narrow one (a handful of channels).

    Attributes:
        geometries: sizes of the stages to grow through.
        image_channels: gray and colour.
        classes: 0, or the number of classes to condition on.
        batch_sizes: that the networks must take.
        latent_size: Z.
        tolerance: for two ways to compute the same, relative to the largest value.
    """

    kind = "architectures"
    geometries: Sequence[Sequence[int | Sequence[int]]] = ((4, 8, 16), (5, 15), ((4, 6), (8, 12)))
    image_channels: Sequence[int] = (1, 3)
    classes = 0
    batch_sizes: Sequence[int] = (1, 2, 3, 6)
    latent_size = 8
    tolerance = 1e-5

    def chosen(self, part: Any) -> dict[str, Any]:
        """As `train.architecture`."""
        return {"architecture": part}

    def resampling(self) -> Resampling:
        """The pair for features; the one for images is always nearest up, area down."""
        return Area()

    def grown(self, stages: Sequence[Stage], bridged: bool = False, seed: int = 0) -> tuple[Generator, Discriminator]:
        """New networks, grown to the last of the stages, with their old paths if `bridged`."""
        pair = (self.make(), self.resampling(), Area(), seed)
        networks = Generator(*pair, self.latent_size, stages[0]), Discriminator(*pair, stages[0])
        for stage in stages[1:]:
            for net in networks:
                net.grow(stage, bridged and stage is stages[-1])
        return networks

    def growths(self) -> Iterator[tuple[Stage, ...]]:
        """All stages of each geometry, up to each stage, in gray and colour."""
        for sizes in self.geometries:
            for channels in self.image_channels:
                stages = make_stages(sizes, channels, self.classes)
                for end in range(1, len(stages) + 1):
                    yield stages[:end]

    def latents(self, count: int) -> tuple[Tensor, Tensor | None]:
        """What G is given: latents (count, Z) and labels."""
        return noise(count, self.latent_size), labels_for(self.classes, count)

    def test_shapes(self) -> None:
        """Images and scores have the right shape and type at every stage, channel count and batch size."""
        for stages in self.growths():
            stage, fades = stages[-1], len(stages) > 1
            networks = self.grown(stages, bridged=fades)
            for count in self.batch_sizes:
                for alpha in (None, HALF) if fades else (None,):
                    self._check_shapes(*networks, stage, count, alpha)

    def _check_shapes(
        self, generator: Generator, discriminator: Discriminator, stage: Stage, count: int, alpha: Tensor | None
    ) -> None:
        where = f"at {stage.size} with {stage.image_channels} channels and a batch of {count}"
        latents, labels = self.latents(count)
        images = generator(latents, labels, alpha)
        wanted = (count, stage.image_channels, stage.height, stage.width)
        require(
            tuple(images.shape) == wanted and images.dtype == torch.float32,
            f"G's images {where} are {images.dtype} {tuple(images.shape)}, not float32 {wanted}",
        )
        heard: list[Any] = []
        hook = discriminator.head.register_forward_hook(lambda module, given, output: heard.append(output))
        try:
            scores = discriminator(images, labels, alpha)
        except Exception:
            require(not heard or isinstance(heard[0], Scores), f"D's head returns {_type(heard)}, not Scores")
            raise
        finally:
            hook.remove()
        require(isinstance(heard[0], Scores), f"D's head returns {_type(heard)}, not Scores")
        require(
            tuple(scores.score.shape) == (count,),
            f"D's scores {where} have shape {tuple(scores.score.shape)}, not ({count},)",
        )
        if scores.class_logits is not None:
            require(
                tuple(scores.class_logits.shape) == (count, self.classes),
                f"D's class_logits {where} have shape {tuple(scores.class_logits.shape)}, not {(count, self.classes)}",
            )

    def test_gradients_flow(self) -> None:
        """In mid-fade, every parameter of both networks, bridges included, gets a gradient."""
        for stages in self.growths():
            generator, discriminator = self.grown(stages, bridged=True)
            alpha = HALF if len(stages) > 1 else None
            shake(generator)
            shake(discriminator)
            torch.manual_seed(0)
            latents, labels = self.latents(4)
            images = generator(latents, labels, alpha)
            scores = discriminator(images, labels, alpha)
            total = scores.score.sum()
            if scores.class_logits is not None:
                total = total + (scores.class_logits * noise(*scores.class_logits.shape)).sum()
            total.backward()
            where = f"at {stages[-1].size}"
            require_gradients(generator, f"the generator {where}")
            require_gradients(discriminator, f"the discriminator {where}")

    def test_function_at_alpha_0(self) -> None:
        """At alpha 0 a grown network computes what it computed before, or the architecture says that it does not."""
        preserves = self.make().preserves_function
        for stages in self.growths():
            if len(stages) > 1:
                changed = self._changes(stages)
                where = f"grown to {stages[-1].size}, at alpha 0"
                if preserves:
                    for net, change in changed.items():
                        require(
                            change <= self.tolerance,
                            f"preserves_function is True, but {where} the {net}'s output differs from what it was "
                            f"before growth by {change:.2g}",
                        )
                else:
                    require(
                        max(changed.values()) > self.tolerance,
                        f"preserves_function is False, but {where} both networks compute what they did before",
                    )

    @torch.no_grad()
    def _changes(self, stages: Sequence[Stage]) -> dict[str, float]:
        """How much each network's output changes as it grows to the last stage with alpha at 0."""
        stage = stages[-1]
        generator, discriminator = self.grown(stages[:-1])
        for net in (generator, discriminator):
            shake(net)
            net.eval()
        latents, labels = self.latents(4)
        images = noise(4, stage.image_channels, stage.height, stage.width, seed=1).clamp(-1, 1)
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
            "generator": difference(new_images, old_images),
            "discriminator": difference(new_scores, old_scores),
        }

    def test_function_at_alpha_1(self) -> None:
        """At alpha 1 the old path does not count, and without it the network is the one that never had it."""
        for stages in self.growths():
            if len(stages) < 2:
                continue
            latents, labels = self.latents(3)
            images = noise(3, stages[-1].image_channels, stages[-1].height, stages[-1].width)
            plain = self.grown(stages)
            for net, other, given in zip(self.grown(stages, bridged=True), plain, (latents, images), strict=True):
                net.eval()
                other.eval()
                outputs = []
                for alpha in (ONE, None):
                    torch.manual_seed(0)
                    outputs.append(_first(net(given, labels, alpha)))
                where = f"the {net.kind} at {stages[-1].size}"
                change = difference(*outputs)
                require(change <= self.tolerance, f"at alpha 1 the old path still changes {where}, by {change:.2g}")
                net.end_fade()
                require(
                    equal(weights(net), weights(other)),
                    f"{where} without its old path is not what a hard switch makes: the pieces' initial weights depend "
                    "on whether there is a bridge, or something of the bridge stays behind",
                )

    @torch.no_grad()
    def test_batches_stay_apart(self) -> None:
        """What an architecture that `separates_batches` says of two batches in one call is what it says of each."""
        stages = make_stages(self.geometries[0], self.image_channels[0], self.classes)[:2]
        discriminator = self.grown(stages, bridged=True)[1]
        if not discriminator.separates_batches():
            return
        for count in self.batch_sizes:
            pair = [(i + 1) * noise(count, *_shape(stages[-1]), seed=i) for i in range(2)]
            labels = labels_for(self.classes, 2 * count)
            with side_by_side(2):
                both = discriminator(torch.cat(pair), labels, HALF)
            for images, rows in zip(pair, (slice(count), slice(count, None)), strict=True):
                alone = discriminator(images, None if labels is None else labels[rows], HALF)
                pairs = zip(both.rows(rows)[:2], alone[:2], strict=True)
                change = max(difference(*values) for values in pairs if values[0] is not None)
                require(
                    change <= self.tolerance,
                    "separates_batches is True, but beside another batch the scores of one change, "
                    f"by {change:.2g} with {count} samples in each",
                )

    @torch.no_grad()
    def test_batch_statistics(self) -> None:
        """What `batch_statistics` declares is so: a sample's output depends on others of its batch where a statistic
        is computed over several, and nowhere else."""
        declare = getattr(self.make(), "batch_statistics", None)
        if declare is None:
            return
        for stages in self.growths():
            generator, discriminator = self.grown(stages, bridged=True)
            for count in self.batch_sizes:
                try:
                    statistics = declare(stages[-1], count)
                except ValueError:
                    continue
                where = f"at {stages[-1].size} with {count} samples"
                _check_statistics(statistics, count, where)
                images = noise(count, *_shape(stages[-1]))
                for net, given in ((generator, self.latents(count)[0]), (discriminator, images)):
                    self._check_dependence(net, given, statistics, where)

    def _check_dependence(
        self, net: Generator | Discriminator, given: Tensor, statistics: Sequence[BatchStatistic], where: str
    ) -> None:
        """Change all samples but the first, and see whether the first one's output changes."""
        shake(net)
        before = weights(net)
        others = torch.cat([given[:1], 3 * noise(*given.shape, seed=1)[1:]])
        labels = labels_for(self.classes, len(given))
        alpha = HALF if net.bridge is not None else None
        outputs = []
        for batch in (given, others):
            net.load_state_dict(before)  # running statistics and spectral norm's estimate move with each call
            torch.manual_seed(0)
            outputs.append(_first(net(batch, labels, alpha))[:1])
        depends = difference(*outputs) > self.tolerance
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

    def test_initial_weights(self) -> None:
        """The same seed gives the same weights, another seed others; and two networks share none."""
        stages = make_stages(self.geometries[0], self.image_channels[0], self.classes)
        first, second, other = (self.grown(stages, seed=seed) for seed in (0, 0, 1))
        for one, two, three in zip(first, second, other, strict=True):
            require(equal(weights(one), weights(two)), f"the {one.kind}'s initial weights differ under the same seed")
            require(
                not equal(weights(one), weights(three)), f"the {one.kind}'s initial weights do not depend on the seed"
            )
            shared = {id(param) for param in one.parameters()} & {id(param) for param in two.parameters()}
            require(not shared, f"two {one.kind}s share weights: the architecture must make new modules at each call")

    @torch.no_grad()
    def test_memory_formats_agree(self) -> None:
        """channels_last gives the same numbers, and bfloat16 finite ones; in inference mode, since what dropout leaves
        out goes by the place in memory."""
        stages = make_stages(self.geometries[0], self.image_channels[0], self.classes)[:2]
        generator, discriminator = self.grown(stages, bridged=True)
        images = noise(4, *_shape(stages[-1]))
        for net, given in ((generator, self.latents(4)[0]), (discriminator, images)):
            net.eval()
            outputs = []
            for memory_format in (torch.contiguous_format, torch.channels_last):
                _to_format(net, memory_format)
                moved = given.to(memory_format=memory_format) if given.dim() == 4 else given
                torch.manual_seed(0)
                outputs.append(_first(net(moved, labels_for(self.classes, 4), HALF)))
            change = difference(*outputs)
            require(change <= 1e-4, f"with memory format channels_last the {net.kind}'s output changes by {change:.2g}")
            with torch.autocast("cpu", torch.bfloat16):
                low = _first(net(given, labels_for(self.classes, 4), HALF))
            require(bool(low.isfinite().all()), f"under bfloat16 autocast the {net.kind}'s output is not finite")


def _check_statistics(statistics: Sequence[Any], samples: int, where: str) -> None:
    for statistic in statistics:
        require(
            isinstance(statistic, BatchStatistic) and statistic.net in ("generator", "discriminator"),
            f"batch_statistics {where} gives {statistic!r}, not a BatchStatistic of the generator or discriminator",
        )
        require(
            1 <= statistic.group <= samples,
            f"batch_statistics {where} gives {statistic.name} a group of {statistic.group}",
        )


def _to_format(net: Any, memory_format: torch.memory_format) -> None:
    """Typed loosely, because `Module.to` has no overload for it."""
    net.to(memory_format=memory_format)


def _shape(stage: Stage) -> tuple[int, int, int]:
    return stage.image_channels, stage.height, stage.width


def _type(values: Sequence[Any]) -> str:
    return ", ".join(type(value).__name__ for value in values)


def _first(output: Any) -> Tensor:
    """Images as they are; the score of Scores."""
    return output.score if isinstance(output, Scores) else output

"""How far the images of a run's stages are from each other, for the same latents."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pggan_kit import ConfigError, Quantity, check_at_least, torch_generator
from pggan_kit.components import FeatureExtractor, StageEnd

BATCH = 100
"""Number of images that are drawn at once."""


class Coherence:
    """Whether a network that has grown comes back to the picture that it drew before, or draws another one.

    Of the same latents, the images at the end of a stage are compared with those at the end of a later one, reduced to
    the size of the former by the means of whole areas. The value is the root mean square of their differences, divided
    by the same between images of different latents: 0 is the same picture, and 1 is as far as another latent's. Of a
    conditional generator all latents keep their labels, and a different latent is one with the same label.

    `Coherence 7x7-14x14` is the value between the stages of these sizes, for each pair of stages; `Coherence` is the
    mean over all stages but the last one, each compared with the last one that has ended. It needs two such stages.

    Args:
        features: Features in which the images are compared too, as `Coherence_features`.
        count: Number of latents.
        seed: Seed of the latents, which are the same for all runs with one latent size.
        largest: Largest height at which images are compared. Those of a higher stage are reduced to the size of the
            last stage that is not higher, or of the first stage.
        suffix: A suffix of the names `Coherence` and `Coherence_features`.

    Raises:
        SettingError: `count` below 2 or `largest` below 1.
    """

    def __init__(
        self,
        features: FeatureExtractor | None = None,
        count: int = 256,
        seed: int = 0,
        largest: int = 64,
        suffix: str = "",
    ) -> None:
        check_at_least("count", count, 2)
        check_at_least("largest", largest, 1)
        self.features = features
        self.count = count
        check_at_least("seed", seed, 0)
        self.seed = seed
        self.largest = largest

        # A ratio of distances: not negative, and about 1 where two pictures have nothing in common.
        quantity = Quantity("lower", range=(0.0, math.inf))
        self.names = {"pixels": f"Coherence{suffix}"}
        if features is not None:
            self.names["features"] = f"Coherence_features{suffix}"
        self.quantities = dict.fromkeys(self.names.values(), quantity)

    def measure_run(self, ends: Sequence[StageEnd]) -> dict[str, float]:
        """Return the value of each pair of stages, and the mean of those with the last stage.

        Raises:
            ConfigError: No two latents have one label.
        """
        if len(ends) < 2:
            return {}
        latents = draw_latents(self.count, ends[0].latent_size, self.seed)
        labels = make_labels(self.count, ends[0].classes)
        heights = [end.stage.height for end in ends]

        # Images are drawn once, and kept at the sizes at which they are compared.
        drawn = []
        for number, end in enumerate(ends):
            sizes = {choose_height(heights[: earlier + 1], self.largest) for earlier in range(number + 1)}
            drawn.append(self._draw(end, latents, labels, sizes))

        values: dict[str, float] = {}
        for space, name in self.names.items():
            to_last = []
            for earlier, end in enumerate(ends[:-1]):
                height = choose_height(heights[: earlier + 1], self.largest)
                for later in range(earlier + 1, len(ends)):
                    before = getattr(drawn[earlier][height], space)
                    after = getattr(drawn[later][height], space)
                    value = compare_pictures(before, after, labels)
                    values[f"{name} {end.stage.size}-{ends[later].stage.size}"] = value
                to_last.append(value)
            values[name] = math.fsum(to_last) / len(to_last)
        return values

    def _draw(self, end: StageEnd, latents: Tensor, labels: Tensor | None, heights: set[int]) -> dict[int, Pictures]:
        """Return the images of a stage's end at some heights."""
        # A batch at a time, reduced to all heights.
        batches: dict[int, list[Tensor]] = {height: [] for height in heights}
        for start in range(0, len(latents), BATCH):
            batch_labels = None
            if labels is not None:
                batch_labels = labels[start : start + BATCH]
            images = end.generate(latents[start : start + BATCH], batch_labels)
            for height in heights:
                batches[height].append(reduce_images(images, height))

        # Pixels and features at each height.
        drawn = {}
        for height in heights:
            images = torch.cat(batches[height])
            features = None
            if self.features is not None:
                features = self.features(images)
            drawn[height] = Pictures(images.flatten(1), features)
        return drawn


class Pictures(NamedTuple):
    """Images of the same latents at one size.

    Attributes:
        pixels: Their numbers (N, P) in [-1, 1].
        features: Their features (N, F), or None where there is no extractor.
    """

    pixels: Tensor
    features: Tensor | None


def draw_latents(count: int, latent_size: int, seed: int) -> Tensor:
    """Return the latents (count, Z) of a seed."""
    return torch.randn(count, latent_size, generator=torch_generator(seed, "coherence latents"))


def make_labels(count: int, classes: int) -> Tensor | None:
    """Return labels (count,) 0, 1, ..., K - 1, 0, ...; None without classes.

    Raises:
        ConfigError: No two latents have one label.
    """
    if not classes:
        return None
    if count <= classes:
        raise ConfigError(
            f"coherence compares images of different latents with one label: with {classes} classes, count must be "
            f"above {classes}, and is {count}"
        )
    return torch.arange(count) % classes


def choose_height(heights: Sequence[int], largest: int) -> int:
    """Return the height at which images of the last of some rising stages are compared."""
    fitting = [height for height in heights if height <= largest]
    return max(fitting, default=heights[0])


def reduce_images(images: Tensor, height: int) -> Tensor:
    """Return images (N, C, h, w) at a height that divides h, each pixel the mean of an area."""
    factor = images.shape[2] // height
    return F.avg_pool2d(images.double(), factor).float()


def compare_pictures(earlier: Tensor, later: Tensor, labels: Tensor | None) -> float:
    """Return how far the pictures of each latent are from each other, relative to those of different latents.

    Args:
        earlier, later: Pictures, or their features (N, D), of the same latents.
        labels: Labels (N,), where different latents are those of one label; None: all others.

    Returns:
        sqrt(mean of |x_i - y_i|^2 / mean of |x_i - y_j|^2 over i != j). NaN where pictures of different latents are
        the same ones.
    """
    x = earlier.double().flatten(1).cpu()
    y = later.double().flatten(1).cpu()
    # Distances do not change when both are moved, and differences of large numbers are avoided.
    centre = (x.mean(0) + y.mean(0)) / 2
    x = x - centre
    y = y - centre
    same = (x - y).square().sum(1)

    # The sum over all pairs of a group, those of a latent with itself left out.
    groups = torch.zeros(len(x), dtype=torch.int64) if labels is None else labels
    total = 0.0
    pairs = 0
    for label in groups.unique():
        members = groups == label
        n = int(members.sum())
        a = x[members]
        b = y[members]
        squares = n * float(a.square().sum() + b.square().sum())
        products = float(a.sum(0) @ b.sum(0))
        total += squares - 2 * products - float(same[members].sum())
        pairs += n * (n - 1)
    other = max(0.0, total) / pairs
    if other <= EPSILON * float(x.square().sum() + y.square().sum()) / len(x):
        return math.nan
    return math.sqrt(float(same.mean()) / other)


EPSILON = 1e-12
"""Smallest share of their squares that different pictures differ by: less is a rounding error."""

"""`metrics.Coherence` against an independent formula in float64, and its conformance suite."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from pggan_kit.components import StageEnd
from pggan_kit.errors import ConfigError
from pggan_kit.testing import RunMetricSuite, make_stages
from pggan_plugins.metrics import Coherence
from pggan_plugins.metrics.coherence import compare_pictures


class Columns:
    """Features that need no weights: the means of the images' columns."""

    def __call__(self, images: Tensor) -> Tensor:
        return images.mean((1, 2))

    def fingerprint(self) -> str:
        return "means of columns"


class TestCoherence(RunMetricSuite):
    bad_arguments = ({"count": 1}, {"largest": 0})

    def make(self) -> Coherence:
        return Coherence(Columns(), count=24)


def compute_ratio(x: np.ndarray, y: np.ndarray, labels: Sequence[int]) -> float:
    """Return the root mean square of differences over that between other latents of the same label, pair by pair."""
    count = len(x)
    squares = ((x.reshape(count, 1, -1) - y.reshape(1, count, -1)) ** 2).mean(2)
    one_label = np.array(labels)[:, None] == np.array(labels)
    return math.sqrt(np.diag(squares).mean() / squares[one_label & ~np.eye(count, dtype=bool)].mean())


def average_areas(images: np.ndarray, factor: int) -> np.ndarray:
    n, c, h, w = images.shape
    return images.reshape(n, c, h // factor, factor, w // factor, factor).mean(axis=(3, 5))


@pytest.mark.parametrize("labels", [None, [0, 1, 0, 1, 2, 0, 1, 2, 2]])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_pictures_are_compared_with_those_of_other_latents(labels: list[int] | None, offset: float) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(9, 5)) + offset
    y = 0.5 * x + rng.normal(size=(9, 5)) + offset / 2
    given = None if labels is None else torch.tensor(labels)
    value = compare_pictures(torch.tensor(x), torch.tensor(y), given)
    assert value == pytest.approx(compute_ratio(x, y, labels or [0] * 9), rel=1e-9)


def test_ends_of_the_scale() -> None:
    """0 is the same picture, 1 another latent's; where all latents have one picture, there is no scale."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(400, 30, generator=generator) for _ in range(2))
    assert compare_pictures(x, x, None) == 0
    assert compare_pictures(x, y, None) == pytest.approx(1, abs=0.02)
    assert math.isnan(compare_pictures(x[:1].expand(8, -1), x[:1].expand(8, -1), None))
    # A pair of labels that differ in nothing but their labels are not other latents.
    labels = torch.arange(400) % 2
    shifted = x + 100 * labels[:, None]
    assert compare_pictures(shifted, y + 100 * labels[:, None], labels) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("largest", [64, 6, 2])
def test_a_run_against_the_formula(channels: int, classes: int, largest: int) -> None:
    """Stages that grow by 2 and by 3 and are not square; the images are those of the latents' seed, and no others."""
    sizes = ((3, 4), (6, 8), (18, 24))
    stages = make_stages(sizes, image_channels=channels)
    rng = np.random.default_rng(1)
    weights = [rng.normal(size=(5, channels, h, w)) for h, w in sizes]
    asked: list[tuple[Tensor, Tensor | None]] = []

    def make_end(stage: int) -> StageEnd:
        def generate(latents: Tensor, labels: Tensor | None = None) -> Tensor:
            asked.append((latents, labels))
            images = torch.einsum("nz,zchw->nchw", latents.double(), torch.tensor(weights[stage]))
            return images if labels is None else images + labels.view(-1, 1, 1, 1)

        return StageEnd(stages[stage], 0, 5, classes, generate)

    metric = Coherence(Columns(), count=110, seed=7, largest=largest, suffix="_b")
    values = metric.measure_run([make_end(stage) for stage in range(3)])

    # All stages have drawn the same latents and labels, in batches.
    latents = torch.cat([batch for batch, _ in asked]).view(3, 110, 5)
    assert torch.equal(latents[0], latents[1]) and torch.equal(latents[0], latents[2])
    labels = [i % classes if classes else 0 for i in range(110)]
    images = [np.einsum("nz,zchw->nchw", latents[0].double().numpy(), weight) for weight in weights]
    if classes:
        images = [own + np.array(labels)[:, None, None, None] for own in images]

    wanted = {}
    for earlier, later in ((0, 1), (0, 2), (1, 2)):
        height = 6 if earlier == 1 and largest >= 6 else 3
        pair = [average_areas(images[stage], sizes[stage][0] // height) for stage in (earlier, later)]
        name = f"{stages[earlier].size}-{stages[later].size}"
        wanted[f"Coherence_b {name}"] = compute_ratio(*pair, labels)
        wanted[f"Coherence_features_b {name}"] = compute_ratio(*[own.mean((1, 2)) for own in pair], labels)
    for name in ("Coherence_b", "Coherence_features_b"):
        wanted[name] = (wanted[f"{name} 3x4-18x24"] + wanted[f"{name} 6x8-18x24"]) / 2
    assert values == pytest.approx(wanted, rel=1e-5)


def test_latents_come_from_the_seed_alone() -> None:
    """Whatever torch's generator drew before; another seed has other latents."""

    def draw(seed: int) -> Tensor:
        seen: list[Tensor] = []

        def generate(latents: Tensor, labels: Tensor | None = None) -> Tensor:
            seen.append(latents)
            return latents[:, :1, None, None].expand(-1, 1, 4, 4)

        ends = [StageEnd(stage, 0, 5, 0, generate) for stage in make_stages((4, 4 * 2))[:1]] * 2
        Coherence(count=4, seed=seed).measure_run(ends)
        return seen[0]

    torch.manual_seed(5)
    first = draw(0)
    assert torch.equal(draw(0), first) and not torch.equal(draw(1), first)


def test_too_few_latents_for_the_classes() -> None:
    stages = make_stages((4, 8))
    ends = [StageEnd(stage, 0, 5, 10, lambda latents, labels=None: latents) for stage in stages]
    with pytest.raises(ConfigError, match="with 10 classes, count must be above 10, and is 10"):
        Coherence(count=10).measure_run(ends)

"""How far a generator's images are from real ones: both are described, then compared, at the size of a stage.

Reals are those of the evaluation's data set, resized like the training data, never faded and never flipped. Fakes are
rounded to 8 bits, as reals are. The noise floor of a value is the same metric between two halves of the reals.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pggan_kit.components import Metric
from pggan_kit.errors import ConfigError, DataError, TrainingError, UserError
from pggan_kit.evaluation.description_cache import Keeper
from pggan_kit.evaluation.settings import FEWEST, EvaluationSettings
from pggan_kit.layers.tensors import images_from_uint8, images_to_uint8
from pggan_kit.schedule import Size
from pggan_kit.system.seeding import derive, fork_random_numbers, numpy_generator, torch_generator


class Reals(NamedTuple):
    """Images to compare with.

    Attributes:
        images: uint8 (n, C, h, w), perhaps a memory map.
        labels: int64 (n,), or None.
        name: equal if and only if the images are; None: what is said of them is not kept on disk.
    """

    images: np.ndarray
    labels: np.ndarray | None
    name: str | None


class Value(NamedTuple):
    """What a metric says.

    Attributes:
        name: `FID`.
        value: fakes against reals.
        floor: one half of the reals against the other: what is left between images of the same kind. None where the
            metric gives none of this name.
        floor_count: reals in each half.
    """

    name: str
    value: float
    floor: float | None
    floor_count: int


class Evaluator:
    """Measures fakes of one size after another against a data set's reals.

    Args:
        metrics: what is measured.
        settings: how.
        reals: gives the reals of a size.
        keeper: keeps what was said of reals on disk; None: nothing is kept.
        device: where images are described.

    Attributes:
        say: told, once for a metric, that there are sizes at which it is not defined.
    """

    def __init__(
        self,
        metrics: Sequence[Metric],
        settings: EvaluationSettings,
        reals: Callable[[Size], Reals],
        keeper: Keeper | None,
        device: torch.device,
    ) -> None:
        self.metrics = metrics
        self.settings = settings
        self.say: Callable[[str], None] = warnings.warn
        self._find, self._keeper, self._device = reals, keeper, device
        self._size: Size | None = None
        self._reals: Reals
        self._described: dict[str, Tensor | None] = {}
        self._floors: dict[str, float] = {}
        self._said: set[str] = set()

    def due(self, images: int, last_tick: int, tick: int) -> bool:
        """Whether an evaluation is due at a tick, by its clock and that of the tick before."""
        period = tick * self.settings.every
        return images // period > last_tick // period

    def labels(self, size: Size) -> Tensor | None:
        """(count,) labels of the reals that fakes are compared with, for conditional generators to draw the same."""
        self._turn_to(size)
        labels = self._reals.labels
        if labels is None:
            return None
        return torch.from_numpy(np.resize(labels[self._rows()], self.settings.count))

    def measure(self, size: Size, fakes: Iterable[Tensor]) -> list[Value]:
        """All metrics' values.

        Args:
            size: (height, width) of the fakes.
            fakes: batches (N, C, h, w), nominally in [-1, 1], `settings.count` images in all.

        Raises:
            UserError: data or metrics that do not fit.
            TrainingError: a metric failed.
        """
        with torch.no_grad(), fork_random_numbers(self._device):
            self._turn_to(size)
            defined = [metric for metric in self.metrics if self._described[metric.fingerprint()] is not None]
            described = self._describe(defined, map(_rounded, fakes))
            found: dict[str, float] = {}
            for metric in defined:
                real, fake = (side[metric.fingerprint()] for side in (self._described, described))
                assert real is not None and fake is not None, "defined at this size"
                found = _joined(found, self._compared(metric, real[: self.settings.count], fake))
        half = len(self._rows()) // 2
        return [Value(name, value, self._floors.get(name), half) for name, value in found.items()]

    def _turn_to(self, size: Size) -> None:
        """Describe the reals of a size, and compare their halves."""
        if size == self._size:
            return
        self._reals = self._find(size)
        if len(self._reals.images) < FEWEST:
            raise DataError(
                f"an evaluation needs at least {FEWEST} real images, and there are {len(self._reals.images)}"
            )
        self._described, self._floors, self._size = {}, {}, None
        for metric in self.metrics:
            self._described |= self._real_description(metric, size)
            described = self._described[metric.fingerprint()]
            if described is not None:
                half = len(described) // 2
                self._floors = _joined(
                    self._floors, self._compared(metric, described[:half], described[half : 2 * half])
                )
        self._size = size

    def _real_description(self, metric: Metric, size: Size) -> dict[str, Tensor | None]:
        name, settings = metric.fingerprint(), self.settings
        if name in self._described:
            return {}

        def make() -> Tensor | None:
            return self._describe([metric], self._real_batches())[name]

        if self._keeper is None or self._reals.name is None:
            found = make()
        else:
            key = (self._reals.name, *size, len(self._rows()), settings.batch_size, name)
            found = self._keeper.get(key, make)
        if found is None and name not in self._said:
            self._said.add(name)
            self.say(
                f"metrics.{type(metric).__name__} is not defined at {size[0]}x{size[1]}, and gives no value where it "
                "is not"
            )
        return {name: found}

    def _rows(self) -> np.ndarray:
        """Which reals are used: at random, but always the same; those of the comparison first."""
        n = len(self._reals.images)
        rows: np.ndarray = numpy_generator(0, "evaluation").permutation(n)[: 2 * self.settings.count]
        return rows

    def _real_batches(self) -> Iterator[Tensor]:
        rows, size = self._rows(), self.settings.batch_size
        for start in range(0, len(rows), size):
            images = self._reals.images.take(rows[start : start + size], axis=0)
            yield images_from_uint8(torch.from_numpy(images))

    def _describe(self, metrics: Sequence[Metric], batches: Iterable[Tensor]) -> dict[str, Tensor | None]:
        """What metrics say of all images, by fingerprint."""
        asked = {metric.fingerprint(): metric for metric in metrics}
        parts: dict[str, list[Tensor | None]] = {name: [] for name in asked}
        for number, images in enumerate(batches):
            images = images.to(self._device)
            for name, metric in asked.items():
                torch.manual_seed(derive(0, "describe", number))
                with _blamed(metric, images):
                    described = metric.describe(images)
                    parts[name].append(None if described is None else described.cpu())
        return {name: None if found[0] is None else torch.cat(found) for name, found in parts.items()}  # type: ignore[arg-type]

    def _compared(self, metric: Metric, real: Tensor, fake: Tensor) -> dict[str, float]:
        torch.manual_seed(derive(0, "compare"))
        with _blamed(metric, fake):
            values = {name: float(value) for name, value in metric.compare(real, fake).items()}
        unstated = sorted(values.keys() - metric.quantities.keys())
        if unstated:
            raise ConfigError(
                f"metrics.{type(metric).__name__} gives a value {unstated[0]} and states nothing about it: add a "
                f"Quantity for this name to its `quantities`, which names {', '.join(metric.quantities) or 'nothing'}"
            )
        return values


@contextlib.contextmanager
def _blamed(metric: Metric, given: Tensor) -> Iterator[None]:
    """Say which metric failed."""
    try:
        yield
    except (UserError, TrainingError):
        raise
    except Exception as error:
        raise TrainingError(
            f"metrics.{type(metric).__name__} failed on {tuple(given.shape)}: {type(error).__name__}: {error}"
        ) from error


def _joined(found: dict[str, float], more: dict[str, float]) -> dict[str, float]:
    twice = sorted(found.keys() & more.keys())
    if twice:
        raise ConfigError(f"train.metrics: two metrics give a value {twice[0]}; give one of them a `suffix`")
    return {**found, **more}


def _rounded(images: Tensor) -> Tensor:
    """To 8 bits, like reals."""
    if not images.isfinite().all():
        raise TrainingError("the generator's images are not finite: there is nothing to measure")
    return images_from_uint8(images_to_uint8(images))


def fakes(
    draw: Callable[[Tensor, Tensor | None, int], Tensor],
    latent_size: int,
    settings: EvaluationSettings,
    seed: int,
    labels: Tensor | None,
) -> Iterator[Tensor]:
    """The batches of fakes that a seed's evaluations are made of, whatever the state of training.

    Args:
        draw: (latents (N, Z), labels (N,) or None, a seed for the networks' own noise) -> images (N, C, h, w).
        latent_size: Z.
        settings: count and batch size.
        seed: of the experiment.
        labels: (count,) or None.
    """
    latents = torch.randn(settings.count, latent_size, generator=torch_generator(seed, "evaluation latents"))
    for start in range(0, settings.count, settings.batch_size):
        part = slice(start, start + settings.batch_size)
        yield draw(latents[part], None if labels is None else labels[part], derive(seed, "evaluation noise", start))

"""Measure how far a generator's images are from real ones: describe both, then compare them, at the size of a stage.

Reals are those of the evaluation's data set, resized like the training data, never faded and never flipped. Fakes are
rounded as reals are: bytes to 8 bits. The noise floor of a value is the same metric between two halves of the reals.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pggan_kit.components import ImageMetric, Metric, RunMetric, StageEnd, find_quantity
from pggan_kit.errors import ConfigError, DataError, TrainingError, UserError
from pggan_kit.evaluation.description_cache import DescriptionCache
from pggan_kit.evaluation.settings import FEWEST_REALS, EvaluationSettings
from pggan_kit.layers.tensors import at_least_float32
from pggan_kit.layers.value_maps import BYTES, ValueMap, hold_in_tensor
from pggan_kit.schedule import Size
from pggan_kit.system.activities import report_activity
from pggan_kit.system.seeding import derive, fork_random_numbers, numpy_generator, seed_torch, torch_generator


class RealSet(NamedTuple):
    """Images to compare with.

    Attributes:
        images: The data's own numbers (n, C, h, w), which may be a memory map.
        labels: int64 (n,), or None where there are none.
        name: Name that is equal if and only if the images are. None where descriptions of them are not to be cached.
    """

    images: np.ndarray
    labels: np.ndarray | None
    name: str | None


class Value(NamedTuple):
    """A metric's value.

    Attributes:
        name: Name of the value, e.g. `FID`.
        value: Value of the metric between fakes and reals.
        floor: Value between two halves of the reals: the distance that is left between images of the same kind. None
            where the metric has no value of this name there.
        floor_count: Number of reals in each half. None where a metric compares with no reals.
    """

    name: str
    value: float
    floor: float | None
    floor_count: int | None


class Evaluator:
    """Measures fakes of one size after another against a data set's reals.

    Args:
        metrics: Metrics to measure.
        settings: How they are measured.
        reals: Function that returns the reals of a size.
        cache: Cache of the reals' descriptions. None to describe them in each process.
        device: Device on which images are described.
        values: Map of the reals' numbers to [-1, 1].

    Attributes:
        say: Function that is called with one sentence, once for each metric that is not defined at a size.
    """

    def __init__(
        self,
        metrics: Sequence[ImageMetric],
        settings: EvaluationSettings,
        reals: Callable[[Size], RealSet],
        cache: DescriptionCache | None,
        device: torch.device,
        values: ValueMap = BYTES,
    ) -> None:
        self.values = values
        self.metrics = metrics
        self.settings = settings
        self.say: Callable[[str], None] = warnings.warn
        self._find_reals = reals
        self._cache = cache
        self._device = device
        self._undefined: set[str] = set()

        # What is known of the reals of one size. Descriptions have the metric's fingerprint as their key.
        self._size: Size | None = None
        self._reals: RealSet
        self._descriptions: dict[str, Tensor | None] = {}
        self._floors: dict[str, float] = {}

    def labels(self, size: Size) -> Tensor | None:
        """Return the labels (count,) of the reals that fakes are compared with, for conditional generators.

        Returns:
            Labels int64 (count,), repeated where there are fewer reals. None where the data set has none.
        """
        with torch.no_grad(), fork_random_numbers(self._device):
            self._prepare_reals(size)
        labels = self._reals.labels
        if labels is None:
            return None
        return torch.from_numpy(np.resize(labels[self._choose_rows()], self.settings.count))

    def measure(self, size: Size, batches: Iterable[Tensor]) -> list[Value]:
        """Return the values of all metrics that are defined at a size.

        Args:
            size: (height, width) of the fakes.
            batches: Fakes (N, C, h, w), nominally in [-1, 1], of `settings.count` images in all.

        Raises:
            UserError: The data or the metrics cannot be used.
            TrainingError: A metric failed, or fakes are not finite.
        """
        with torch.no_grad(), fork_random_numbers(self._device):
            self._prepare_reals(size)
            defined = [metric for metric in self.metrics if self._descriptions[metric.fingerprint()] is not None]

            # All fakes are described before the first comparison, so that they are drawn only once.
            fakes = (round_fakes(images, self.values) for images in batches)
            descriptions = self._describe(defined, fakes, "drawing and describing images", self.settings.count)
            values: dict[str, float] = {}
            for metric in defined:
                real = self._descriptions[metric.fingerprint()]
                fake = descriptions[metric.fingerprint()]
                assert real is not None and fake is not None, "defined at this size"
                values = _merge_values(values, _compare(metric, real[: self.settings.count], fake))

        half = len(self._choose_rows()) // 2
        return [Value(name, value, self._floors.get(name), half) for name, value in values.items()]

    def _prepare_reals(self, size: Size) -> None:
        """Describe the reals of a size and compare their halves, unless they are those of the last call."""
        if size == self._size:
            return
        # An error on the way must not leave one size's reals or descriptions under the name of another.
        self._size = None
        self._reals = self._find_reals(size)
        if len(self._reals.images) < FEWEST_REALS:
            raise DataError(
                f"an evaluation needs at least {FEWEST_REALS} real images, and there are {len(self._reals.images)}"
            )
        self._descriptions = {}
        self._floors = {}
        for metric in self.metrics:
            name = metric.fingerprint()
            if name not in self._descriptions:
                self._descriptions[name] = self._describe_reals(metric, size)
            description = self._descriptions[name]
            if description is not None:
                half = len(description) // 2
                floors = _compare(metric, description[:half], description[half : 2 * half])
                self._floors = _merge_values(self._floors, floors)
        self._size = size

    def _describe_reals(self, metric: ImageMetric, size: Size) -> Tensor | None:
        """Return a metric's description of the reals, if possible from the cache; None where it is not defined."""
        name = metric.fingerprint()

        def describe() -> Tensor | None:
            what = f"describing real images for metrics.{type(metric).__name__}"
            return self._describe([metric], self._read_reals(), what, len(self._choose_rows()))[name]

        if self._cache is None or self._reals.name is None:
            description = describe()
        else:
            key = (self._reals.name, *size, len(self._choose_rows()), self.settings.batch_size, name)
            description = self._cache.get(key, describe)

        # Once for each metric, not at each size.
        if description is None and name not in self._undefined:
            self._undefined.add(name)
            self.say(
                f"metrics.{type(metric).__name__} is not defined at {size[0]}x{size[1]}, and gives no value where it "
                "is not defined"
            )
        return description

    def _choose_rows(self) -> np.ndarray:
        """Return the rows of the reals in use: random, but always the same; those of the comparison come first."""
        n = len(self._reals.images)
        rows: np.ndarray = numpy_generator(0, "evaluation").permutation(n)[: 2 * self.settings.count]
        return rows

    def _read_reals(self) -> Iterator[Tensor]:
        """Yield the reals in use, batch by batch, in [-1, 1]."""
        rows = self._choose_rows()
        batch_size = self.settings.batch_size
        for start in range(0, len(rows), batch_size):
            pixels = self._reals.images.take(rows[start : start + batch_size], axis=0)
            yield self.values.to_images(hold_in_tensor(pixels))

    def _describe(
        self, metrics: Sequence[ImageMetric], batches: Iterable[Tensor], what: str, total: int
    ) -> dict[str, Tensor | None]:
        """Return the metrics' descriptions of all images by fingerprint; None where a metric is not defined.

        Args:
            metrics: Metrics that describe the images.
            batches: Images (N, C, h, w).
            what: What is done, for `report_activity`.
            total: Number of all images.
        """
        by_name = {metric.fingerprint(): metric for metric in metrics}
        pieces: dict[str, list[Tensor]] = {name: [] for name in by_name}
        undefined: set[str] = set()
        with report_activity(what, total) as activity:
            for number, images in enumerate(batches):
                images = images.to(self._device)
                for name, metric in by_name.items():
                    # A metric that draws random numbers draws the same ones for a batch, whatever came before.
                    seed_torch(derive(0, "describe", number))
                    with _name_failing_metric(metric, f"{tuple(images.shape)}"):
                        piece = metric.describe(images)
                    if piece is None:
                        undefined.add(name)
                    else:
                        _require_finite_rows(metric, piece, len(images))
                        pieces[name].append(_hold_on_host(piece))
                activity.advance(len(images))

        descriptions: dict[str, Tensor | None] = {}
        for name, metric in by_name.items():
            if name in undefined:
                if pieces[name]:
                    raise TrainingError(
                        f"metrics.{type(metric).__name__} describes some batches and returns None for others of the "
                        "same size: None must depend on the size alone"
                    )
                descriptions[name] = None
            else:
                descriptions[name] = torch.cat(pieces[name])
        return descriptions


def _require_finite_rows(metric: ImageMetric, description: object, count: int) -> None:
    """Check that a metric describes each of `count` images by one row of finite numbers.

    A comparison with NaN is False, so that metrics would count such an image as one that differs from all others.

    Raises:
        TrainingError: It does not.
    """
    name = f"metrics.{type(metric).__name__}"
    if not isinstance(description, Tensor):
        raise TrainingError(
            f"{name}: describe() returned {description!r:.100}, and must return a tensor with a row for each image, or "
            "None where the metric is not defined at this size"
        )
    if description.dim() == 0 or len(description) != count:
        raise TrainingError(
            f"{name} describes {count} images by a tensor {tuple(description.shape)}: it must have one row for each"
        )
    if not description.isfinite().all():
        raise TrainingError(
            f"{name} describes images by NaN or infinite numbers, with which nothing can be compared: the images are "
            "finite, so look at what describes them, its weights and its precision"
        )


def _hold_on_host(description: Tensor) -> Tensor:
    """Return a description on the CPU, with numbers of half precision, which NumPy has no files for, as float32."""
    if description.is_floating_point():
        description = at_least_float32(description)
    return description.cpu()


def _compare(metric: ImageMetric, real: Tensor, fake: Tensor) -> dict[str, float]:
    """Return the values of a metric between two descriptions.

    Raises:
        ConfigError: The metric returns a value that its `quantities` do not name.
        TrainingError: The metric failed.
    """
    # A metric that draws random numbers draws the same ones in each comparison.
    seed_torch(derive(0, "compare"))
    comparing = f"comparing descriptions by metrics.{type(metric).__name__}"
    with report_activity(comparing), _name_failing_metric(metric, f"{tuple(fake.shape)}"):
        values = _read_values(metric, "compare", metric.compare(real, fake))
    _require_stated(metric, values)
    return values


def measure_run(metrics: Sequence[RunMetric], ends: Sequence[StageEnd], device: torch.device) -> list[Value]:
    """Return the values of metrics of a run; those that are not defined for its stages have none.

    Args:
        metrics: Metrics to measure.
        ends: Ends of the run's stages, oldest first.
        device: Device whose random numbers are left as they are.

    Raises:
        ConfigError: A metric returns a value that its `quantities` do not name, or two return one of the same name.
        TrainingError: A metric failed, or images are not finite.
    """
    values: dict[str, float] = {}
    with torch.no_grad(), fork_random_numbers(device):
        for metric in metrics:
            # A metric that draws random numbers draws the same ones for each run.
            seed_torch(derive(0, "measure run"))
            measuring = f"measuring a run by metrics.{type(metric).__name__}"
            sizes = ", ".join(end.stage.size for end in ends) or "none"
            with report_activity(measuring), _name_failing_metric(metric, f"the ends of the stages {sizes}"):
                own = _read_values(metric, "measure_run", metric.measure_run(ends))
            _require_stated(metric, own)
            values = _merge_values(values, own)
    return [Value(name, value, None, None) for name, value in values.items()]


def _read_values(metric: Metric, method: str, returned: object) -> dict[str, float]:
    """Return the values that a method of a metric returned, as numbers.

    Raises:
        TrainingError: They are no dict.
    """
    if not isinstance(returned, Mapping):
        raise TrainingError(
            f"metrics.{type(metric).__name__}: {method}() returned {returned!r:.100}, and must return a dict of "
            "numbers by name"
        )
    return {name: float(value) for name, value in returned.items()}


def _require_stated(metric: Metric, values: Iterable[str]) -> None:
    """Check that a metric's `quantities` name each of its values."""
    for name in sorted(values):
        if find_quantity(metric.quantities, name) is None:
            stated = ", ".join(metric.quantities) or "nothing"
            raise ConfigError(
                f"metrics.{type(metric).__name__} gives a value {name} and states nothing about it: add a "
                f"Quantity for this name to its `quantities`, which names {stated}"
            )


@contextlib.contextmanager
def _name_failing_metric(metric: Metric, argument: str) -> Iterator[None]:
    """Name the metric, and what it was given, in an error that it raises within a block."""
    try:
        yield
    except (UserError, TrainingError):
        raise
    except Exception as error:
        raise TrainingError(
            f"metrics.{type(metric).__name__} failed on {argument}: {type(error).__name__}: {error}"
        ) from error


def _merge_values(values: dict[str, float], more: dict[str, float]) -> dict[str, float]:
    """Return the values of two metrics together.

    Raises:
        ConfigError: Both have a value of the same name.
    """
    shared = sorted(values.keys() & more.keys())
    if shared:
        raise ConfigError(f"train.metrics: two metrics give a value {shared[0]}; give one of them a `suffix`")
    return {**values, **more}


def round_fakes(images: Tensor, values: ValueMap) -> Tensor:
    """Round images in [-1, 1] to values that the data can hold, like those of reals.

    Raises:
        TrainingError: They are not finite.
    """
    if not images.isfinite().all():
        raise TrainingError("the generator's images are not finite: there is nothing to measure")
    return values.round_images(images)


def draw_fakes(
    draw: Callable[[Tensor, Tensor | None, int], Tensor],
    latent_size: int,
    settings: EvaluationSettings,
    seed: int,
    labels: Tensor | None,
) -> Iterator[Tensor]:
    """Yield the batches of fakes that the evaluations of a seed measure, whatever the state of training.

    Args:
        draw: Function (latents (N, Z), labels (N,) or None, seed of the networks' own noise) -> images (N, C, h, w).
        latent_size: Z.
        settings: Number of fakes and batch size.
        seed: Seed of the experiment.
        labels: Labels (count,), or None.
    """
    latents = torch.randn(settings.count, latent_size, generator=torch_generator(seed, "evaluation latents"))

    # The noise of a batch depends on the seed and the batch's place alone.
    for start in range(0, settings.count, settings.batch_size):
        end = start + settings.batch_size
        batch_labels = None
        if labels is not None:
            batch_labels = labels[start:end]
        yield draw(latents[start:end], batch_labels, derive(seed, "evaluation noise", start))

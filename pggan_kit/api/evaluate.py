"""Measure a run's generator, or one folder of images against another."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pggan_kit.api.average import load_average
from pggan_kit.api.image_folders import read_comparable_images
from pggan_kit.api.prepare import KEEP_NONE, prepare_run
from pggan_kit.api.stage_ends import restore_stage_ends
from pggan_kit.components import ImageMetric, Metric, RunMetric
from pggan_kit.config import gin_files as configs
from pggan_kit.config.bindings import Binding, Macro, iterate_references
from pggan_kit.config.builder import build_from_config
from pggan_kit.config.gin_files import Config
from pggan_kit.data.value_range import describe_clipping
from pggan_kit.errors import ConfigError, DataError, RunError, TrainingError, require_list, require_path
from pggan_kit.evaluation.evaluator import Evaluator, RealSet, Value, draw_fakes, measure_run
from pggan_kit.evaluation.settings import EvaluationSettings
from pggan_kit.experiment import Experiment
from pggan_kit.growth.averages import BEST
from pggan_kit.layers.value_maps import BYTES, ValueMap, hold_in_tensor
from pggan_kit.plugin_host.loading import load_plugins
from pggan_kit.runs.checkpoint_identity import read_noted_fingerprint
from pggan_kit.runs.generators import TrainedGenerator, draw_images
from pggan_kit.runs.run import Run
from pggan_kit.runs.snapshot import Snapshot
from pggan_kit.schedule import Stage
from pggan_kit.system.activities import track_items
from pggan_kit.system.devices import find_device
from pggan_kit.system.seeding import numpy_generator

CHANGEABLE = ("metrics", "features", "datasets", "evaluation")
"""First names of selectors that bindings may set, besides `train.metrics`."""

WIDTHS = (0.02, 0.03, 0.04, 0.05, 0.07, 0.1, 0.14, 0.2)
"""Widths among which the best is chosen, which the default power functions give within 5 %."""

CHANGEABLE_SETTINGS = (("", "train", "metrics"), ("", "train", "keep_best"), ("", "train", "dataset"))
"""Keys of bindings of `train` that an evaluation may override; the data set must be the run's own, where it has one."""

NO_METRICS = (
    "there is nothing to measure: bind train.metrics, or name a metric with what it needs, as in `--metric "
    "FrechetDistance -b 'metrics.FrechetDistance.features = @features.Digits()'`; `pggan-kit plugins list` shows "
    "metrics and features"
)


def evaluate(
    run_or_folder: str | Path | Run,
    against: str | Path | None = None,
    *,
    metrics: Sequence[str] = (),
    bindings: Sequence[str] = (),
    plugins: Sequence[Any] = (),
    parts: Mapping[str, object] | None = None,
    stage: str | int | None = None,
    checkpoint: str = "last",
    count: int | None = None,
    average: str | float | Path | None = None,
    tuning: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Measure how far images are from real ones.

    Args:
        run_or_folder: a run or its directory, whose averaged generator is measured at the size and alpha it has
            reached; or, with `against`, a folder of images or an .npz file as `pggan-kit sample` writes it.
        against: real images, in such a folder or file.
        metrics: metrics instead of the config's `train.metrics`, e.g. `["FrechetDistance"]` or
            `["metrics.FrechetDistance"]`.
        bindings: overrides of the run's config, of metrics, features, evaluation and (in a scope of their own) data
            sets: `["evaluation.dataset = @test/datasets.MNIST()", "test/datasets.MNIST.split = 'test'"]`.
        plugins: plugins beside the installed ones; of a run, instead of the plugin files that it used.
        parts: new objects for those that the run was begun with; None where there were none.
        stage: a stage's number from 0, or its size, for the run's generator as it was when that stage ended; None: as
            it is at the last checkpoint.
        checkpoint: `last`, `best` or `fade`; see `load_generator`.
        count: a number instead of `evaluation.count`; of two folders, this many images of each are drawn, always the
            same.
        average: the average of the run's generator; see `load_generator`. `"best"` for the width of `WIDTHS` whose
            first value is best under the bindings `tuning`; what is returned is measured without them.
        tuning: overrides that choose the images on which a width is chosen, other ones than those that are reported:
            `["evaluation.dataset = @tune/datasets.MNIST()", "tune/datasets.MNIST.split = 'tuning'"]`.

    Returns:
        A row for each value: `metric`, `value`, `floor` (the same metric between two halves of the reals, or None),
        `count` (fakes, and at most as many reals), `floor_count` (reals in each half), `size` (`28x28`), and of a run
        `stage`, `images` (the clock) and `average` (its name), else None. `count`, `floor_count` and `average` are None
        for a metric of a run, which is measured on the ends of its stages up to `stage`. Rows of the best checkpoint
        also have `chosen`: what it was chosen by, whose value is then no fair estimate.

    Raises:
        UserError: the input was wrong, or no metric is defined at this size: a message says what to do.
        TrainingError: a metric failed, or the generator's images are not finite.
    """
    require_list("metrics", metrics)
    require_list("bindings", bindings)
    overrides = [*bindings, *_bind_arguments(metrics, count)]

    # A run is measured as it is, or with the width of average that suits it best.
    require_list("tuning", tuning)
    _require_tuning_with_best(average, tuning)
    if average == BEST:
        average = _choose_width(run_or_folder, overrides, tuning, plugins, parts, stage, checkpoint)
    if against is None:
        return _evaluate_run(run_or_folder, overrides, plugins, parts, stage, average, checkpoint)

    # Two folders: settings of runs would have no effect on them.
    if isinstance(run_or_folder, Run) or stage is not None or average is not None or checkpoint != "last":
        raise RunError(
            "to compare two folders, name folders of images or .npz files, and no run, stage, checkpoint or average"
        )
    folders = (require_path("run_or_folder", run_or_folder), require_path("against", against))
    for folder in folders:
        _require_no_run(folder)
    return _evaluate_folders(*folders, overrides, plugins)


def _require_tuning_with_best(average: str | float | Path | None, tuning: Sequence[str]) -> None:
    """Check that images to choose a width on are named where, and only where, one is chosen.

    Raises:
        ConfigError: One is given without the other.
    """
    if bool(tuning) != (average == BEST):
        raise ConfigError(
            f"--average {BEST} chooses a width on images of its own, and nothing else does: give both, e.g. --tuning "
            "'evaluation.dataset = @tune/datasets.NAME()', or none"
        )


def _bind_arguments(metrics: Sequence[str], count: int | None) -> list[str]:
    """Return the bindings for which arguments of `evaluate` are short forms."""
    bindings = []
    for name in metrics:
        if not isinstance(name, str):
            raise ConfigError(f"metrics must be names of metrics, not {name!r}")
    if metrics:
        references = ", ".join(f"@metrics.{name.removeprefix('metrics.')}()" for name in metrics)
        bindings.append(f"train.metrics = [{references}]")
    if count is not None:
        bindings.append(f"evaluation.count = {count}")
    return bindings


def _require_no_run(folder: Path) -> None:
    """Check that a folder of images is no run.

    Raises:
        RunError: It is one.
    """
    if (folder / "run.json").exists():
        raise RunError(
            f"{folder} is a run, and not a folder of images: measure it alone, or draw images from it with "
            "`pggan-kit sample`"
        )


def _evaluate_run(
    run: str | Path | Run,
    bindings: Sequence[str],
    plugins: Sequence[Any],
    parts: Mapping[str, object] | None,
    ended_stage: str | int | None,
    average: str | float | Path | None,
    checkpoint: str,
) -> list[dict[str, Any]]:
    # Nothing is kept here, and the value that was kept by need not be measured.
    prepared, files = prepare_run(run, plugins, parts, [KEEP_NONE, *bindings])
    _require_changeable(prepared.config)
    experiment = prepared.built.experiment
    schedule = prepared.schedule()
    if not experiment.metrics:
        raise ConfigError(NO_METRICS)

    # The generator, at its place on the clock.
    generator, saved, name = load_average(prepared, files, schedule, ended_stage, average, checkpoint)
    require_own_data(saved, experiment)
    stage = schedule.at(saved.images, saved.starts).stage

    # Metrics of images measure this generator.
    device = find_device("auto")
    evaluator = prepared.evaluator([stage], device)
    rows = []
    if evaluator is not None:
        values = _measure(generator.to(device), evaluator, stage, experiment.seed, device)
        count = evaluator.settings.count
        rows += [_make_row(value, count, stage.size, stage.index, saved.images, name) for value in values]

    # Metrics of a run measure those at the ends of its stages.
    run_metrics = [metric for metric in experiment.metrics if isinstance(metric, RunMetric)]
    if run_metrics:
        ends = restore_stage_ends(prepared, files, saved.images, device, plugins, parts)
        values = measure_run(run_metrics, ends, device)
        rows += [_make_row(value, None, stage.size, stage.index, saved.images) for value in values]
    _require_rows(rows, experiment.metrics, stage.size)
    if checkpoint == "best":
        rows = [{**row, "chosen": dict(saved.best)} for row in rows]
    return rows


def _choose_width(
    run: str | Path | Run,
    bindings: Sequence[str],
    tuning: Sequence[str],
    plugins: Sequence[Any],
    parts: Mapping[str, object] | None,
    stage: str | int | None,
    checkpoint: str,
) -> float:
    """Return the width of `WIDTHS` whose first value is best on the tuning data."""
    # What tuning binds, the evaluation itself binds otherwise.
    replaced = configs.parse_overrides(tuning)
    overrides = [*configs.leave_out(bindings, replaced.__contains__), *tuning]
    prepared, _ = prepare_run(run, plugins, parts, overrides)
    directions: dict[str, str] = {}
    for metric in prepared.built.experiment.metrics:
        directions |= {name: quantity.direction for name, quantity in metric.quantities.items()}

    values: dict[float, float] = {}
    for width in track_items(WIDTHS, "measuring averages", len(WIDTHS), "widths"):
        first = _evaluate_run(run, overrides, plugins, parts, stage, width, checkpoint)[0]
        name = first["metric"]
        if name not in directions:
            raise ConfigError(f"--average {BEST}: the metric of {name} does not state which of its values are better")
        sign = 1.0 if directions[name] == "lower" else -1.0
        if math.isfinite(first["value"]):
            values[width] = sign * first["value"]
    if not values:
        raise TrainingError(f"--average {BEST}: {name} is not finite with any of the averages of width {list(WIDTHS)}")
    return min(values, key=values.__getitem__)


def _measure(
    generator: TrainedGenerator, evaluator: Evaluator, stage: Stage, seed: int, device: torch.device
) -> list[Value]:
    def draw(latents: Tensor, labels: Tensor | None, noise_seed: int) -> Tensor:
        return draw_images(generator, latents, labels, None, noise_seed, device)

    size = (stage.height, stage.width)
    labels = None
    if generator.classes:
        labels = evaluator.labels(size)
    return evaluator.measure(size, draw_fakes(draw, generator.latent_size, evaluator.settings, seed, labels))


def _require_rows(rows: Sequence[Any], metrics: Sequence[Metric], size: str) -> None:
    if rows:
        return
    names = ", ".join(f"metrics.{type(metric).__name__}" for metric in metrics)
    remedy = "choose others, or another size"
    if any(isinstance(metric, RunMetric) for metric in metrics):
        remedy += "; a metric of a run may need several stages that have ended"
    raise ConfigError(f"train.metrics: none of {names} is defined at {size}; {remedy}")


def _require_changeable(config: Config) -> None:
    """Check that overrides change how a run is measured, and nothing of the run."""
    for binding in config.bindings:
        is_override = binding.place.line is None and not binding.place.default
        if is_override and not _is_changeable(binding, config):
            raise ConfigError(
                f"{binding.place}: an evaluation may bind train.metrics, and settings of "
                f"{', '.join(f'{name}.*' for name in CHANGEABLE)}; all else is the run's own"
            )


def _is_changeable(binding: Binding, config: Config) -> bool:
    """Return whether an evaluation may bind something; a macro only where all that use it may be bound."""
    if not binding.is_macro:
        return binding.selector.partition(".")[0] in CHANGEABLE or binding.key in CHANGEABLE_SETTINGS
    macro = Macro(binding.name)
    users = [other for other in config.bindings if macro in iterate_references(other.value)]
    return all(_is_changeable(user, config) for user in users)


def require_own_data(saved: Snapshot, experiment: Experiment) -> None:
    """Check that the training data are still those that the run was trained on."""
    noted = read_noted_fingerprint(saved.identity)
    if noted is not None and noted != experiment.dataset.fingerprint():
        raise ConfigError(
            "train.dataset is not what the run was trained on: give bindings of evaluation.dataset a scope of their "
            "own (evaluation.dataset = @test/datasets.NAME(), test/datasets.NAME.split = ...), or check whether the "
            "data changed"
        )


@dataclass
class Comparison:
    """Settings that `train.*` may bind where two folders are compared."""

    _: KW_ONLY
    evaluation: EvaluationSettings
    metrics: Sequence[Metric] = ()


COMPARISON = {"train": Comparison, "evaluation": EvaluationSettings}


def _evaluate_folders(
    fake_folder: Path, real_folder: Path, bindings: Sequence[str], plugins: Sequence[Any]
) -> list[dict[str, Any]]:
    config = configs.parse_text("", "evaluate", bindings)
    comparison: Comparison = build_from_config(config, load_plugins(plugins), COMPARISON).experiment
    if not comparison.metrics:
        raise ConfigError(NO_METRICS)
    metrics = []
    for metric in comparison.metrics:
        if not isinstance(metric, ImageMetric):
            raise ConfigError(
                f"train.metrics: metrics.{type(metric).__name__} measures a run by the ends of its stages, and folders "
                "have none: name a run"
            )
        metrics.append(metric)
    if comparison.evaluation.dataset is not None:
        raise ConfigError("evaluation.dataset has no use where two folders are compared")

    fake_images, real_images = read_comparable_images(fake_folder, real_folder)

    # Drawn, since files are often sorted by class; in another order than the reals, which may be the same images.
    height, width = fake_images.shape[2:]
    settings = replace(comparison.evaluation, count=max(2, min(comparison.evaluation.count, len(fake_images))))
    rows = numpy_generator(0, "evaluation fakes").permutation(len(fake_images))[: settings.count]
    reals = RealSet(real_images, None, None)
    mapped = _find_values(real_images)
    for line in describe_clipping("the range of the real images", fake_images, mapped, fake_folder):
        warnings.warn(line, stacklevel=3)
    evaluator = Evaluator(metrics, settings, lambda _: reals, None, find_device("auto"), mapped)
    values = evaluator.measure((height, width), _split_into_batches(fake_images, rows, settings.batch_size, mapped))

    size = f"{height}x{width}"
    _require_rows(values, comparison.metrics, size)
    return [_make_row(value, settings.count, size) for value in values]


def _find_values(reals: np.ndarray) -> ValueMap:
    """Return the map of numbers to [-1, 1]: that of bytes, or by the smallest and the largest number of each channel.

    Raises:
        DataError: a channel has one number alone.
    """
    if reals.dtype == np.uint8:
        return BYTES
    low = reals.min(axis=(0, 2, 3)).astype(np.float64)
    high = reals.max(axis=(0, 2, 3)).astype(np.float64)
    for channel in np.flatnonzero(low >= high):
        raise DataError(f"channel {channel} has the one number {low[channel]:g} in all real images: leave it out")
    return ValueMap(reals.dtype.name, list(zip(low.tolist(), high.tolist(), strict=True)))


def _split_into_batches(images: np.ndarray, rows: np.ndarray, batch_size: int, values: ValueMap) -> Iterator[Tensor]:
    """Yield the chosen images (N, C, h, w) in [-1, 1], a batch at a time."""
    for start in range(0, len(rows), batch_size):
        yield values.to_images(hold_in_tensor(images[rows[start : start + batch_size]]))


def _make_row(
    value: Value,
    count: int | None,
    size: str,
    stage: int | None = None,
    images: int | None = None,
    average: str | None = None,
) -> dict[str, Any]:
    return {
        "metric": value.name,
        "value": value.value,
        "floor": value.floor,
        "count": count,
        "floor_count": value.floor_count,
        "size": size,
        "stage": stage,
        "images": images,
        "average": average,
    }

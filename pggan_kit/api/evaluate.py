"""`pggan_kit.evaluate`: measure a run's generator, or one folder of images against another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pggan_kit.api.prepare import recorded
from pggan_kit.components import Metric
from pggan_kit.config import gin_files as configs
from pggan_kit.config.builder import build
from pggan_kit.config.gin_files import Config
from pggan_kit.errors import ConfigError, DataError, RunError
from pggan_kit.evaluation.evaluator import Evaluator, Reals, Value, fakes
from pggan_kit.evaluation.settings import EvaluationSettings
from pggan_kit.experiment import Experiment
from pggan_kit.layers.tensors import images_from_uint8
from pggan_kit.plugin_host.loading import load
from pggan_kit.runs.generators import TrainedGenerator, drawn, restored, stage_end
from pggan_kit.runs.identity import noted_fingerprint
from pggan_kit.runs.run import Run
from pggan_kit.runs.snapshot import Snapshot
from pggan_kit.schedule import Stage
from pggan_kit.system.devices import device_of
from pggan_kit.system.seeding import numpy_generator

CHANGEABLE = ("metrics", "features", "datasets", "evaluation")
"""What bindings may begin with; and `train.metrics`."""

NO_METRICS = (
    "there is nothing to measure: bind train.metrics, e.g. `--metric NAME`; `pggan-kit plugins list` shows metrics"
)

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
FORMATS = ("PNG", "JPEG", "WEBP", "BMP")


def evaluate(
    run_or_folder: str | Path | Run,
    against: str | Path | None = None,
    *,
    metrics: Sequence[str] = (),
    bindings: Sequence[str] = (),
    plugins: Sequence[Any] = (),
    parts: Mapping[str, object] | None = None,
    stage: str | int | None = None,
    count: int | None = None,
) -> list[dict[str, Any]]:
    """How far images are from real ones.

    Args:
        run_or_folder: a run or its directory, whose averaged generator is measured at the size and alpha it has
            reached; or, with `against`, a folder of images or an .npz file as `pggan-kit sample` writes it.
        against: real images, in such a folder or file.
        metrics: instead of the config's `train.metrics`, e.g. `["FrechetDistance"]` or `["metrics.FrechetDistance"]`.
        bindings: over those of the run's config, of metrics, features, evaluation and (in a scope of their own) data
            sets: `["evaluation.dataset = @test/datasets.MNIST()", "test/datasets.MNIST.split = 'test'"]`.
        plugins: beside the installed ones; of a run, instead of the plugin files that it used.
        parts: where a run was begun with objects: such objects again.
        stage: of a run, as it was when this stage ended: its number from 0, or its size; None: the last.
        count: instead of `evaluation.count`; of two folders, so many images of each are drawn, always the same.

    Returns:
        A row for each value: `metric`, `value`, `floor` (the same metric between two halves of the reals, or None),
        `count` (fakes, and at most as many reals), `floor_count` (reals in each half), `size` (`28x28`), and of a run
        `stage` and `images` (the clock), else None.

    Raises:
        UserError: the input was wrong, or no metric is defined at this size: a message says what to do.
        TrainingError: a metric failed, or the generator's images are not finite.
    """
    wanted = [*bindings]
    if metrics:
        wanted.append(f"train.metrics = [{', '.join(f'@{_selector(name)}()' for name in metrics)}]")
    if count is not None:
        wanted.append(f"evaluation.count = {count}")
    if against is None:
        return _of_run(run_or_folder, wanted, plugins, parts, stage)
    if isinstance(run_or_folder, Run) or stage is not None:
        raise RunError("to compare two folders, name folders of images or .npz files, and no run and no stage")
    return _of_folders(Path(run_or_folder), Path(against), wanted, plugins)


def _selector(name: str) -> str:
    return f"metrics.{name.removeprefix('metrics.')}"


def _of_run(
    run: str | Path | Run,
    bindings: Sequence[str],
    plugins: Sequence[Any],
    parts: Mapping[str, object] | None,
    ended: str | int | None,
) -> list[dict[str, Any]]:
    prepared, files = recorded(run, plugins, parts, bindings)
    _require_changeable(prepared.config)
    experiment, schedule = prepared.built.experiment, prepared.schedule()
    if not experiment.metrics:
        raise ConfigError(NO_METRICS)
    checkpoints = files.checkpoints()
    saved = checkpoints.load_last() if ended is None else stage_end(checkpoints, ended)[1]
    _require_own_data(saved, experiment)
    generator = restored(experiment, schedule, prepared.hooks(), saved)
    stage = schedule.at(saved.images, saved.starts).stage
    device = device_of("auto")
    evaluator = prepared.evaluator([stage], device)
    assert evaluator is not None, "there are metrics"
    values = _some(_measured(generator.to(device), evaluator, stage, experiment.seed, device), evaluator, stage.size)
    return [_row(value, evaluator.settings.count, stage.size, stage.index, saved.images) for value in values]


def _measured(
    generator: TrainedGenerator, evaluator: Evaluator, stage: Stage, seed: int, device: torch.device
) -> list[Value]:
    def draw(latents: Tensor, labels: Tensor | None, noise_seed: int) -> Tensor:
        return drawn(generator, latents, labels, None, noise_seed, device)

    size = (stage.height, stage.width)
    labels = evaluator.labels(size) if generator.classes else None
    return evaluator.measure(size, fakes(draw, generator.latent_size, evaluator.settings, seed, labels))


def _some(values: list[Value], evaluator: Evaluator, size: str) -> list[Value]:
    if not values:
        names = ", ".join(f"metrics.{type(metric).__name__}" for metric in evaluator.metrics)
        raise ConfigError(f"train.metrics: none of {names} is defined at {size}; choose others, or another size")
    return values


def _require_changeable(config: Config) -> None:
    for binding in config.bindings:
        overridden = binding.place.line is None and not binding.place.default
        allowed = binding.selector.partition(".")[0] in CHANGEABLE or binding.key == ("", "train", "metrics")
        if overridden and not allowed:
            raise ConfigError(
                f"{binding.place}: an evaluation may bind train.metrics, and settings of "
                f"{', '.join(f'{name}.*' for name in CHANGEABLE)}; all else is the run's own"
            )


def _require_own_data(saved: Snapshot, experiment: Experiment) -> None:
    noted = noted_fingerprint(saved.identity)
    if noted is not None and noted != experiment.dataset.fingerprint():
        raise ConfigError(
            "train.dataset is not what the run was trained on: give bindings of evaluation.dataset a scope of their "
            "own (evaluation.dataset = @test/datasets.NAME(), test/datasets.NAME.split = ...), or see whether the data "
            "changed"
        )


@dataclass
class Comparison:
    """What `train.*` may bind where two folders are compared."""

    _: KW_ONLY
    evaluation: EvaluationSettings
    metrics: Sequence[Metric] = ()


COMPARISON = {"train": Comparison, "evaluation": EvaluationSettings}


def _of_folders(fake: Path, real: Path, bindings: Sequence[str], plugins: Sequence[Any]) -> list[dict[str, Any]]:
    config = configs.parse_text("", "evaluate", bindings)
    comparison: Comparison = build(config, load(plugins), COMPARISON).experiment
    if not comparison.metrics:
        raise ConfigError(NO_METRICS)
    if comparison.evaluation.dataset is not None:
        raise ConfigError("evaluation.dataset has no use where two folders are compared")
    images, reals = read_images(fake), read_images(real)
    if images.shape[1:] != reals.shape[1:]:
        raise DataError(f"{fake} has images of {_shape(images)}, {real} of {_shape(reals)}: make them alike first")
    size: tuple[int, int] = (images.shape[2], images.shape[3])
    settings = replace(comparison.evaluation, count=max(2, min(comparison.evaluation.count, len(images))))
    # Drawn, since files are often sorted by class; in another order than the reals, which may be the same images.
    rows = numpy_generator(0, "evaluation fakes").permutation(len(images))[: settings.count]
    batches = (
        images_from_uint8(torch.from_numpy(images[rows[start : start + settings.batch_size]]))
        for start in range(0, len(rows), settings.batch_size)
    )
    evaluator = Evaluator(comparison.metrics, settings, lambda _: Reals(reals, None, None), None, device_of("auto"))
    shown = f"{size[0]}x{size[1]}"
    return [_row(value, settings.count, shown) for value in _some(evaluator.measure(size, batches), evaluator, shown)]


def read_images(path: Path) -> np.ndarray:
    """uint8 (N, C, h, w), of a folder's pictures in the order of their paths, or of an .npz file's `images`.

    Raises:
        DataError: there are none, one is damaged, or they differ in size.
    """
    if path.suffix == ".npz":
        return _from_npz(path)
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES) if path.is_dir() else []
    if len(files) < 2:
        raise DataError(
            f"{path} holds no images ({', '.join(SUFFIXES)}): name a run, a folder of images or an .npz file"
        )
    rows: list[np.ndarray] = []
    for file in files:
        try:
            with Image.open(file, formats=FORMATS) as picture:
                gray = rows[0].shape[0] == 1 if rows else picture.mode in ("1", "L", "I;16")
                pixels = np.asarray(picture.convert("L" if gray else "RGB"))
        except Exception as error:  # a damaged file can raise nearly anything
            raise DataError(f"{file} cannot be read as an image ({error})") from error
        rows.append(np.atleast_3d(pixels).transpose(2, 0, 1))
        if rows[-1].shape != rows[0].shape:
            raise DataError(f"{file} has {pixels.shape[0]}x{pixels.shape[1]} pixels, those before it others")
    return np.stack(rows)


def _from_npz(path: Path) -> np.ndarray:
    try:
        with np.load(path, allow_pickle=False) as content:
            images: np.ndarray = content["images"]
    except Exception as error:  # a damaged file can raise nearly anything
        raise DataError(f"{path} cannot be read as an .npz file with an array `images` ({error})") from error
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3) or len(images) < 2:
        raise DataError(f"{path}: images must be uint8 (N, h, w, 1 or 3), and are {images.dtype} {images.shape}")
    channels_first: np.ndarray = images.transpose(0, 3, 1, 2)
    return channels_first


def _shape(images: np.ndarray) -> str:
    return f"{images.shape[2]}x{images.shape[3]} in {images.shape[1]} channels"


def _row(value: Value, count: int, size: str, stage: int | None = None, images: int | None = None) -> dict[str, Any]:
    return {
        "metric": value.name,
        "value": value.value,
        "floor": value.floor,
        "count": count,
        "floor_count": value.floor_count,
        "size": size,
        "stage": stage,
        "images": images,
    }

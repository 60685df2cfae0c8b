"""Find the training images that are nearest to samples of a run: does its generator memorise?"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pggan_kit.api.average import load_average
from pggan_kit.api.evaluate import require_own_data
from pggan_kit.api.image_writers import GRID, make_folder, write_picture
from pggan_kit.api.prepare import prepare_run
from pggan_kit.api.sample import find_classes, iterate_images
from pggan_kit.components import FeatureExtractor
from pggan_kit.config import gin_files as configs
from pggan_kit.config.builder import build_from_config
from pggan_kit.data.sampler import open_data
from pggan_kit.errors import DataError, RunError, check_at_least, check_seed
from pggan_kit.layers.value_maps import BYTES, ValueMap, hold_in_tensor
from pggan_kit.pictures.channels import draw_channels
from pggan_kit.pictures.grid import image_grid
from pggan_kit.plugin_host.loading import Plugins
from pggan_kit.runs.directory import RunDirectory
from pggan_kit.runs.generators import TrainedGenerator
from pggan_kit.runs.targets import require_target_outside_runs
from pggan_kit.system.activities import report_activity
from pggan_kit.system.devices import find_device
from pggan_kit.system.files import require_replaceable, write_atomically
from pggan_kit.system.json_text import json_text
from pggan_kit.system.seeding import fork_random_numbers, numpy_generator

CHUNK_VALUES = 1 << 22
"""Maximum number of pixels of the training images that are compared at once, unless one image alone has more."""

LARGEST_CHUNK = 1024
"""Maximum number of training images that are compared at once."""

TABLES = (".json", ".csv")
"""Suffixes of files of distances."""

Describe = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Wanted:
    """What a `neighbours.*` binding chooses.

    Args:
        features: Features whose distances count; None for pixels.
    """

    features: FeatureExtractor | None = None


@dataclass(frozen=True)
class Neighbours:
    """The training images that are nearest to samples.

    Attributes:
        space: `pixels`, or the name of the features.
        samples: Samples as they are shown, uint8 (N, h, w, 1 or 3), wider where channels are side by side.
        images: The nearest training images, the nearest first, shown likewise, uint8 (N, K, h, w, 1 or 3); mirrored
            where that is nearer and the run was trained on mirrored images too.
        rows: Their numbers among the images that the run was trained on, from 0 (N, K).
        mirrored: Whether they are mirrored (N, K).
        distances: Their distances (N, K): roots of the mean squared difference of pixels in [-1, 1], or of features.
        floor: Distances of as many training images from the nearest other training image (N,).
    """

    space: str
    samples: np.ndarray
    images: np.ndarray
    rows: np.ndarray
    mirrored: np.ndarray
    distances: np.ndarray
    floor: np.ndarray

    def summarize(self) -> dict[str, Any]:
        """Return what `FILE.json` has: the medians, and a row for each sample and neighbour."""
        return {
            "space": self.space,
            "median": float(np.median(self.distances[:, 0])),
            "median_of_reals": float(np.median(self.floor)),
            "nearest": self.list_rows(),
            "reals": [float(distance) for distance in self.floor],
        }

    def list_rows(self) -> list[dict[str, Any]]:
        """Return a row for each sample and neighbour."""
        count, nearest = self.rows.shape
        return [
            {
                "sample": sample,
                "rank": rank,
                "image": int(self.rows[sample, rank]),
                "mirrored": bool(self.mirrored[sample, rank]),
                "distance": float(self.distances[sample, rank]),
            }
            for sample in range(count)
            for rank in range(nearest)
        ]


def find_neighbours(
    run_dir: Path,
    *,
    count: int = 8,
    nearest: int = 5,
    seed: int = 0,
    features: str | None = None,
    bindings: Sequence[str] = (),
    stage: str | int | None = None,
    average: str | float | Path | None = None,
    checkpoint: str = "last",
    image_classes: Sequence[str | int] = (),
    truncation: float | None = None,
    plugins: Sequence[Any] = (),
) -> Neighbours:
    """Find the training images that are nearest to samples of a run's averaged generator.

    All training images are compared, at the size of the samples. A generator memorises where samples are nearer to
    training images than these are to one another (`floor`).

    Args:
        run_dir: the run's folder.
        count: number of samples, those of `sample` with the same count and seed.
        nearest: number of neighbours of each.
        seed: the seed of the latents, and of the training images that are compared with one another.
        features: features in which distances are measured, as `Digits`; None for pixels.
        bindings: settings of the features: `["features.Digits.variant = 'b'"]`.
        stage, average, checkpoint, plugins: see `load_generator`.
        image_classes, truncation: see `sample`.

    Raises:
        SettingError: a number is out of range.
        ConfigError: there are no such features, or the data are not those that the run was trained on.
        DataError: there are fewer training images than neighbours.
        RunError: see `sample`.
    """
    check_at_least("count", count, 1, whole=True)
    check_at_least("nearest", nearest, 1, whole=True)
    check_seed("seed", seed)
    prepared, files = prepare_run(run_dir, plugins)
    _require_training_data(run_dir, files)
    experiment = prepared.built.experiment
    schedule = prepared.schedule()
    generator, saved, _ = load_average(prepared, files, schedule, stage, average, checkpoint)
    require_own_data(saved, experiment)
    describe = _find_features(features, bindings, prepared.plugins)

    # The samples, and the training images at their size.
    samples = _draw_samples(generator, count, seed, image_classes, truncation)
    data = open_data(experiment.dataset, experiment.data, [generator.size], experiment.seed, values=prepared.values)
    reals = data.level(generator.size).images
    if len(reals) <= nearest:
        raise DataError(f"--nearest {nearest}: there are {len(reals)} training images; ask for fewer")

    # Training images are compared with the others in the same pass.
    queries, own_rows = _choose_queries(samples, reals, seed)
    search = Search(queries, own_rows, nearest, describe, experiment.data.mirror, data.values)
    _compare_all(search, reals)

    def show(numbers: np.ndarray) -> np.ndarray:
        return draw_channels(data.values.to_images(hold_in_tensor(numbers)), generator.pictures)

    return _show_found(features or "pixels", samples, reals, search, show)


def _draw_samples(
    generator: TrainedGenerator, count: int, seed: int, image_classes: Sequence[str | int], truncation: float | None
) -> np.ndarray:
    """Return samples (N, C, h, w) in the units of the data; see `sample`."""
    labels = find_classes(image_classes, generator)
    batches = iterate_images(generator, count, seed, labels=labels, truncation=truncation, in_units=True)
    samples: np.ndarray = np.concatenate([images for images, _ in batches]).transpose(0, 3, 1, 2)
    return samples


def _choose_queries(samples: np.ndarray, reals: np.ndarray, seed: int) -> tuple[Tensor, list[int]]:
    """Return the samples and as many of the training images, and the row that is no neighbour of each; -1 for none."""
    chosen = np.sort(numpy_generator(seed, "neighbours").permutation(len(reals))[: len(samples)])
    queries = hold_in_tensor(np.concatenate([samples, reals[chosen]]))
    return queries, [*[-1] * len(samples), *chosen.tolist()]


def _show_found(
    space: str, samples: np.ndarray, reals: np.ndarray, search: Search, show: Callable[[np.ndarray], np.ndarray]
) -> Neighbours:
    """Return what a search found, with images as they are shown.

    Args:
        space: what distances were measured in.
        samples: the samples (N, C, h, w), the first of what was searched for.
        reals: the training images.
        search: the search, after all comparisons.
        show: function from images (n, C, h, w) in the units of the data to those that are shown.
    """
    count = len(samples)
    rows = search.rows[:count].numpy()
    mirrored = search.mirrored[:count].numpy()
    distances = search.distances.numpy()

    # Training images are shown as they were compared: mirrored where that was nearer.
    images = reals[rows]
    images = np.where(mirrored[..., None, None, None], images[..., ::-1], images)
    shown = show(images.reshape(-1, *images.shape[2:]))
    return Neighbours(
        space,
        show(samples),
        shown.reshape(*rows.shape, *shown.shape[1:]),
        rows,
        mirrored,
        distances[:count],
        distances[count:, 0],
    )


def _require_training_data(run_dir: Path, files: RunDirectory) -> None:
    """Check that a run was trained on images.

    Raises:
        RunError: Its networks were imported without them.
    """
    if files.read_data_record().images == 0:
        raise RunError(
            f"the networks of {run_dir} were imported without training data: import them with -b 'train.dataset = "
            "@datasets.NAME()' to find neighbours in these"
        )


def _compare_all(search: Search, reals: np.ndarray) -> None:
    """Compare all training images with what is searched for."""
    with fork_random_numbers(), report_activity("comparing training images", len(reals)) as activity:
        for start, chunk in _iterate_chunks(reals):
            search.compare(start, chunk)
            activity.advance(len(chunk))


def write_neighbours(found: Neighbours, target: Path, table: Path | None = None) -> None:
    """Write a picture with a row for each sample, itself and then its neighbours, and a file of the distances.

    Args:
        found: what was found.
        target: `.png`.
        table: `.json` or `.csv`; None for none.

    Raises:
        RunError: a file has another suffix, or cannot be written.
    """
    require_tables(target, table)

    # The picture, and then the table.
    cells = np.concatenate([found.samples[:, None], found.images], axis=1)
    write_picture(image_grid(cells.reshape(-1, *cells.shape[2:]), columns=cells.shape[1]), target)
    if table is None:
        return

    make_folder(table, table.parent)
    text = json_text(found.summarize(), indent=1)
    if table.suffix == ".csv":
        lines = io.StringIO()
        rows = found.list_rows()
        writer = csv.DictWriter(lines, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        text = lines.getvalue()
    write_atomically(table, text.encode())


def require_tables(target: Path, table: Path | None) -> None:
    """Check the names of the files that `write_neighbours` writes.

    Raises:
        RunError: One has another suffix, or something is there that is no file.
    """
    if target.suffix != GRID:
        raise RunError(f"--out {target}: name a {GRID} file")
    if table is not None and table.suffix not in TABLES:
        raise RunError(f"--distances {table}: name a .json or a .csv file")
    for option, path in (("--out", target), ("--distances", table)):
        if path is not None:
            require_target_outside_runs(option, path)
            require_replaceable(path)


class Search:
    """The nearest of all images that were compared so far.

    Args:
        queries: Images (N, C, h, w) whose neighbours are wanted, in the data's numbers as `hold_in_tensor` holds them.
        own_rows: For each of them, the row that is no neighbour of it; -1 for none.
        nearest: Number of neighbours, K.
        describe: Function from images (n, C, h, w) in [-1, 1] to what distances are measured between, (n, F).
        mirror: Whether images are compared mirrored, too.
        values: Map of the data's numbers to [-1, 1].

    Attributes:
        distances: Distances (N, K), the nearest first.
        rows: Their rows (N, K).
        mirrored: Whether they are mirrored (N, K).
    """

    def __init__(
        self,
        queries: Tensor,
        own_rows: Sequence[int],
        nearest: int,
        describe: Describe,
        mirror: bool,
        values: ValueMap = BYTES,
    ) -> None:
        self._values = values
        self._queries = describe(values.to_images(queries))
        self._own_rows = torch.tensor(own_rows)
        self._describe = describe
        self._mirror = mirror
        shape = (len(queries), nearest)
        self.distances = torch.full(shape, torch.inf)
        self.rows = torch.full(shape, -1)
        self.mirrored = torch.zeros(shape, dtype=torch.bool)

    @torch.no_grad()
    def compare(self, start: int, chunk: np.ndarray) -> None:
        """Compare images (n, C, h, w) in the data's numbers, the first of which has the row `start`."""
        pixels = hold_in_tensor(np.array(chunk))
        distances = self._measure(pixels)
        mirrored = torch.zeros_like(distances, dtype=torch.bool)
        if self._mirror:
            other = self._measure(pixels.flip(3))
            mirrored = other < distances
            distances = torch.minimum(distances, other)
        rows = torch.arange(start, start + len(chunk)).expand_as(distances)
        distances = distances.masked_fill(rows == self._own_rows[:, None], torch.inf)

        # The best of these and of those so far.
        distances = torch.cat([self.distances, distances], 1)
        self.distances, places = distances.topk(self.distances.shape[1], largest=False)
        self.rows = torch.cat([self.rows, rows], 1).gather(1, places)
        self.mirrored = torch.cat([self.mirrored, mirrored], 1).gather(1, places)

    def _measure(self, pixels: Tensor) -> Tensor:
        described = self._describe(self._values.to_images(pixels))
        # The quick way by products leaves a distance between equal images.
        exact = torch.cdist(self._queries, described, compute_mode="donot_use_mm_for_euclid_dist")
        distances: Tensor = exact / described.shape[1] ** 0.5
        return distances


def _iterate_chunks(images: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield images a chunk at a time, each with the row of its first."""
    size = min(LARGEST_CHUNK, max(1, CHUNK_VALUES // images[0].size))
    for start in range(0, len(images), size):
        yield start, images[start : start + size]


def _find_features(name: str | None, bindings: Sequence[str], plugins: Plugins) -> Describe:
    """Return what maps images to pixels or features (n, F), float32 on the CPU."""
    if name is None:
        if bindings:
            raise RunError("-b sets features of --features NAME; leave it out where pixels are compared")
        return lambda images: images.flatten(1)
    selector = f"features.{name.removeprefix('features.')}"
    config = configs.parse_text("", "neighbours", [f"neighbours.features = @{selector}()", *bindings])
    extractor = build_from_config(config, plugins, {"neighbours": Wanted}).experiment.features
    device = find_device("auto")
    return lambda images: extractor(images.to(device)).flatten(1).float().cpu()

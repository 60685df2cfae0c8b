"""Measure from all kept checkpoints of runs how far images of the same latents are from those at the ends of stages.

    python scripts/measure_coherence.py --out FOLDER RUN ...

`metrics.Coherence` has the definition. Beyond its values, the files in FOLDER have what may turn a conclusion:

* `pairs.csv`: each pair of stages, for the average and for the generator that is trained, for two seeds of latents, in
  pixels (also not rounded to 8 bits, and with every n-th pixel in place of means of areas) and in the features of both
  variants of `features.Digits`; the share of latents that keep their digit, and the share that would by chance; and
  the share whose own later image is the nearest among all latents' later images;
* `curve.csv`: the values against each earlier stage end, at each checkpoint and right after each growth (`grown`);
* `drift.csv`: the values between checkpoints of the last stage, every 8,000 images, reduced to smaller heights: what
  training does without growing;
* `RUN.png`: the average's pictures of the first latents, a row for each, at the end of each stage and right after each
  growth.

Train the runs with `train.keep` above the number of ticks. Stages have the sizes of MNIST, for the digit features.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from pggan_kit.api.prepare import prepare_run
from pggan_kit.layers.tensors import images_from_uint8, images_to_uint8
from pggan_kit.pictures import image_grid, to_uint8
from pggan_kit.runs.directory import RunDirectory
from pggan_kit.runs.generators import TrainedGenerator, draw_images, restore_generator
from pggan_kit.runs.snapshot import Snapshot
from pggan_plugins.features import DigitClasses, Digits
from pggan_plugins.metrics.coherence import compare_pictures, draw_latents, reduce_images

COUNT = 256
"""Number of latents, that of `metrics.Coherence`."""

SEEDS = (0, 1)
"""Seeds of latents."""

NETWORKS = ("average", "generator")

HEIGHTS = (7, 14, 28)
"""Heights of the stages."""

STRIP = 12
"""Latents in a strip."""

DRIFT_IMAGES = 8_000
"""Images between two checkpoints whose drift is measured."""


@dataclass(frozen=True)
class Moment:
    """Images of a run at a place on its clock.

    Attributes:
        at: The clock.
        stage: Number of the stage.
        stage_over: Whether it is the stage's end.
        grown: Whether it is right after the growth to the stage, before anything was trained there.
        images: Images (N, 1, h, w) as float32, by network and seed.
    """

    at: int
    stage: int
    stage_over: bool
    grown: bool
    images: dict[tuple[str, int], Tensor]


def read_moments(run: Path, seeds: tuple[int, ...]) -> list[Moment]:
    """Return all kept checkpoints of a run, and the moments right after growths."""
    prepared, _ = prepare_run(run, (), needs_data=False)
    schedule = prepared.resolve_schedule()
    identity = prepared.identify_networks(schedule)
    hooks = prepared.hooks()
    experiment = prepared.built.experiment

    def draw(saved: Snapshot, grown: bool) -> dict[tuple[str, int], Tensor]:
        images = {}
        for network in NETWORKS:
            content = saved
            if network == "generator":
                # The generator that is trained takes the place of the first average, which is drawn.
                name = next(iter(saved.averages))
                content = replace(saved, averages={name: saved.generator})
            generator = restore_generator(experiment, schedule, hooks, content, identity, grown)
            for seed in seeds:
                images[network, seed] = _draw(generator, seed, experiment.seed)
        return images

    # A checkpoint within a stage is one moment; one at its end is also the beginning of the next.
    moments = []
    checkpoints = RunDirectory(run).checkpoints()
    for entry in checkpoints.read_entries():
        saved = checkpoints.load(entry)
        if saved.images == saved.starts[-1]:
            continue
        moments.append(Moment(saved.images, saved.stage, saved.stage_over, False, draw(saved, False)))
        if saved.stage_over and saved.stage + 1 < len(schedule.stages):
            moments.append(Moment(saved.images, saved.stage + 1, False, True, draw(saved, True)))
    return moments


def _draw(generator: TrainedGenerator, seed: int, noise_seed: int) -> Tensor:
    latents = draw_latents(COUNT, generator.latent_size, seed)
    return draw_images(generator, latents, None, None, noise_seed, torch.device("cpu"))


def round_images(images: Tensor) -> Tensor:
    """Round images to 8 bits, as a picture file has them."""
    return images_from_uint8(images_to_uint8(images))


def take_every(images: Tensor, height: int) -> Tensor:
    """Return images at a smaller height, of whose areas the upper left pixel stands for all."""
    factor = images.shape[2] // height
    return images[:, :, ::factor, ::factor]


def compare_moments(earlier: Tensor, later: Tensor, features: dict[str, Any]) -> dict[str, float]:
    """Return all values of two moments' images."""
    height = earlier.shape[2]
    before = round_images(earlier)
    after = reduce_images(round_images(later), height)
    values = {
        "pixels": compare_pictures(before, after, None),
        "unrounded": compare_pictures(earlier, F.avg_pool2d(later, later.shape[2] // height), None),
        "every_nth": compare_pictures(before, take_every(round_images(later), height), None),
    }
    for variant in ("a", "b"):
        extract: Callable[[Tensor], Tensor] = features[variant]
        values[f"features_{variant}"] = compare_pictures(extract(before), extract(after), None)

    # The digit, each image read at its own size.
    digits = [features["classes"](images).argmax(1) for images in (before, round_images(later))]
    shares = [torch.bincount(own, minlength=10) / len(own) for own in digits]
    values["same_digit"] = float((digits[0] == digits[1]).float().mean())
    values["same_digit_by_chance"] = float(shares[0] @ shares[1])

    distances = torch.cdist(before.flatten(1).double(), after.flatten(1).double())
    values["nearest"] = float((distances.argmin(1) == torch.arange(len(distances))).float().mean())
    return values


def measure_pairs(moments: list[Moment], features: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each pair of stage ends, network and seed of latents."""
    ends = [moment for moment in moments if moment.stage_over]
    rows = []
    for number, earlier in enumerate(ends):
        for later in ends[number + 1 :]:
            for network, seed in earlier.images:
                values = compare_moments(earlier.images[network, seed], later.images[network, seed], features)
                pair = {"from": earlier.images[network, seed].shape[2], "to": later.images[network, seed].shape[2]}
                rows.append({**pair, "network": network, "latents": seed, **values})
    return rows


def measure_curve(moments: list[Moment]) -> list[dict[str, Any]]:
    """Return a row for each moment, network and earlier end: of stages, and, at one size, of a clock before."""
    ends = [moment for moment in moments if moment.stage_over]
    rows = []
    for network in NETWORKS:
        for moment in moments:
            after = round_images(moment.images[network, SEEDS[0]])
            for end in ends:
                before = round_images(end.images[network, SEEDS[0]])
                if end.at > moment.at or end.stage >= moment.stage:
                    continue
                value = compare_pictures(before, reduce_images(after, before.shape[2]), None)
                row = {"at": moment.at, "grown": moment.grown, "network": network}
                rows.append({**row, "from": before.shape[2], "to": after.shape[2], "pixels": value})
    return rows


def measure_drift(moments: list[Moment]) -> list[dict[str, Any]]:
    """Return the values between moments of the last stage, at all heights of stages up to its own."""
    last = moments[-1]
    chosen = [m for m in moments if m.stage == last.stage and m.at % DRIFT_IMAGES == 0 and not m.grown]
    rows = []
    for network in NETWORKS:
        images = [round_images(moment.images[network, SEEDS[0]]) for moment in chosen]
        for earlier, later in combinations(range(len(chosen)), 2):
            for height in HEIGHTS:
                before = reduce_images(images[earlier], height)
                value = compare_pictures(before, reduce_images(images[later], height), None)
                row = {"from": chosen[earlier].at, "to": chosen[later].at, "network": network, "height": height}
                rows.append({**row, "pixels": value})
    return rows


def draw_strip(moments: list[Moment]) -> Image.Image:
    """Return the strip of a run: latents from top to bottom, ends of stages and growths from left to right."""
    columns = []
    for moment in moments:
        if moment.stage_over or moment.grown:
            pixels = to_uint8(moment.images["average", SEEDS[0]][:STRIP])
            factor = HEIGHTS[-1] // pixels.shape[1]
            columns.append(pixels.repeat(factor, axis=1).repeat(factor, axis=2))
    images = np.stack(columns, axis=1).reshape(-1, *columns[0].shape[1:])
    return image_grid(images, len(columns))


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows, numbers with four places."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({name: f"{v:.4f}" if isinstance(v, float) else v for name, v in row.items()})


def main() -> None:
    """Measure the runs that the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()

    features = {"a": Digits(), "b": Digits("b"), "classes": DigitClasses()}
    tables: dict[str, list[dict[str, Any]]] = {"pairs": [], "curve": [], "drift": []}
    given.out.mkdir(parents=True, exist_ok=True)
    for run in given.runs:
        moments = read_moments(run, SEEDS)
        draw_strip(moments).save(given.out / f"{run.name}.png", optimize=True)
        measured = {
            "pairs": measure_pairs(moments, features),
            "curve": measure_curve(moments),
            "drift": measure_drift(moments),
        }
        for name, rows in measured.items():
            tables[name] += [{"run": run.name, **row} for row in rows]

    for name, rows in tables.items():
        # Runs of one stage have neither pairs nor a curve.
        if rows:
            write_csv(given.out / f"{name}.csv", rows)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()

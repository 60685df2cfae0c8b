"""Draw images from a finished or running run, and write them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pggan_kit.api.generator import load_generator
from pggan_kit.api.image_writers import GRID, find_suffix, open_images
from pggan_kit.errors import (
    ConfigError,
    RunError,
    check_between,
    check_count,
    check_seed,
    did_you_mean,
    suggest,
)
from pggan_kit.pictures.channels import PictureSettings, draw_channels
from pggan_kit.runs.directory import RunDirectory
from pggan_kit.runs.exported import find_exported_generator
from pggan_kit.runs.generators import CHUNK, FADING, StyleMixing, TrainedGenerator, describe_no_old_path, list_fades
from pggan_kit.runs.targets import require_target_outside_runs
from pggan_kit.system.activities import report_activity
from pggan_kit.system.devices import read_memory_mib
from pggan_kit.system.files import require_replaceable
from pggan_kit.system.seeding import fork_random_numbers, torch_generator

ARRAYS = (".npy", ".npz")
"""Suffixes of targets that hold images in the units and the type of the data."""

SHOWN_NAMES = 10
"""Maximum number of class names in a message."""


def sample(
    run_dir: Path,
    count: int,
    seed: int,
    target: Path,
    plugins: Sequence[Any] = (),
    stage: str | int | None = None,
    image_classes: Sequence[str | int] = (),
    average: str | float | Path | None = None,
    checkpoint: str = "last",
    truncation: float | None = None,
    alpha: float | None = None,
) -> TrainedGenerator:
    """Write `count` images of the averaged generator of a run or of a file, as they are drawn: a batch at a time.

    Args:
        run_dir: the run's folder, or what `pggan-kit export` wrote.
        count: number of images.
        seed: the seed of the latents; the same seed and count give the same images.
        target: `.npz` (`images`, N x H x W x C, and `labels`, where there are any) or `.npy` (the first of them), both
            in the units and the type of the data; `.tar` (PNGs, each with its label beside it), `.png` (a grid), else a
            folder of PNGs with `labels.csv`. For the units of PNGs see `are_in_units`.
        plugins, stage, checkpoint: see `load_generator`.
        image_classes: the classes that the images have in turn, by their names or else their numbers from 0; none: all
            in turn, where there are any.
        average: see `load_generator`.
        truncation: see `TrainedGenerator.forward`.
        alpha: see `load_faded`.

    Returns:
        The generator that drew them.

    Raises:
        SettingError: `count`, `seed`, `truncation` or `alpha` is out of range.
        ConfigError: the network has nothing that could be truncated.
        RunError: the run cannot be read, no such stage has ended, there is no such class, average or fade, the images
            are NaN or infinite, or the target cannot be written.
    """
    check_count("count", count)
    check_seed("seed", seed)
    # The target is checked before anything is drawn, which may take long.
    require_target_outside_runs("--out", target)
    if find_suffix(target):
        require_replaceable(target)
    writing = open_images(target, count)
    generator = load_faded(run_dir, alpha, stage=stage, average=average, checkpoint=checkpoint, plugins=plugins)
    labels = find_classes(image_classes, generator)
    if target.suffix == GRID:
        _require_memory(generator, count)

    in_units = are_in_units(target, generator)
    batches = iterate_images(generator, count, seed, labels=labels, truncation=truncation, in_units=in_units)
    # What cannot be drawn leaves no file: not even an empty folder.
    first = next(batches)
    with writing as writer:
        for images, own_labels in itertools.chain([first], batches):
            writer.write(images, own_labels)
    return generator


def are_in_units(target: Path, generator: TrainedGenerator) -> bool:
    """Return whether images are written in the units and the type of the data, and not as they are shown.

    Arrays are; and so are PNGs in an archive or a folder where PNGs can hold the data and `pictures` is not bound.
    """
    if target.suffix in ARRAYS:
        return True
    if target.suffix == GRID or generator.values.kind != "uint8" or generator.pictures != PictureSettings():
        return False
    return generator.generator.stages[-1].image_channels in (1, 3)


def load_faded(run_dir: Path, alpha: float | None, **choice: Any) -> TrainedGenerator:
    """Return the averaged generator of a run at any alpha of the fade that it stands in.

    Args:
        run_dir: the run's folder.
        alpha: share of the new path in [0, 1]; None for that of the generator's last step.
        choice: see `load_generator`.

    Raises:
        SettingError: `alpha` is out of range.
        RunError: there is an alpha, and the generator has no old path; or see `load_generator`.
    """
    if alpha is not None:
        check_between("alpha", alpha, 0, 1)

    # A generator within a fade has its old path; alpha only chooses the share.
    generator = load_generator(run_dir, **choice)
    if alpha is not None:
        if generator.alpha is None:
            raise RunError(f"--alpha {alpha:g}: {describe_no_old_path(generator.images)}; {_advise_on_fades(run_dir)}")
        generator.alpha.fill_(alpha)
    return generator


def _advise_on_fades(run_dir: Path) -> str:
    """Return where to get a generator with its old path, as the end of a message."""
    if find_exported_generator(run_dir) is not None:
        return f"export one that has: pggan-kit export RUN --checkpoint {FADING}"
    fades = list_fades(RunDirectory.open(run_dir).checkpoints())
    if not fades:
        return (
            "and no checkpoint within a fade was kept (a hard switch has no fade, and train.keep_stages may leave them "
            "out): leave --alpha out"
        )
    return f"give --checkpoint {FADING}, with --stage for the fade of one of these stages: {', '.join(fades)}"


def find_classes(wanted: Sequence[str | int], generator: TrainedGenerator) -> list[int]:
    """Return the numbers of classes; see `find_class`."""
    return [find_class(each, generator.classes, generator.class_names) for each in wanted]


def find_class(wanted: str | int, classes: int, names: Sequence[str]) -> int:
    """Return the number of a class.

    Args:
        wanted: its name, or else its number from 0.
        classes: number of classes; 0 where the generator is unconditional.
        names: names of the classes by their numbers; none without names.

    Raises:
        RunError: there is no such class.
    """
    if not classes:
        raise RunError(f"--class {wanted}: the generator is unconditional; leave --class out")
    if str(wanted) in names:
        return names.index(str(wanted))

    # By its number, unless a class has that number as its name.
    if str(wanted) in map(str, range(classes)):
        return int(wanted)

    listed = f"a number from 0 to {classes - 1}"
    if names:
        listed += f", or one of {', '.join(names[:SHOWN_NAMES])}"
        if len(names) > SHOWN_NAMES:
            listed += ", ..."
    raise RunError(
        f"--class {wanted}: there is no such class; give {listed}{suggest(did_you_mean(str(wanted), names))}"
    )


def _require_memory(generator: TrainedGenerator, count: int) -> None:
    """Check that the machine has memory for all images of a sample at once.

    Raises:
        RunError: It has not.
    """
    try:
        memory = read_memory_mib(torch.device("cpu"))
    except ConfigError:  # this platform does not tell
        return
    needed = count * draw(generator, 1, 0).nbytes / 2**20
    if needed > memory:
        raise RunError(
            f"--count {count}: the images need {needed:,.0f} MiB, and this machine has {memory:,.0f} MiB; draw fewer, "
            "or into an .npz file, a .tar file or a folder, which take none"
        )


def draw(
    generator: TrainedGenerator,
    count: int,
    seed: int,
    alpha: float | None = None,
    first: int | None = None,
    in_units: bool = False,
) -> np.ndarray:
    """Return images of latents that depend on nothing but `seed` and `count`.

    Args:
        generator, count, seed, alpha, first: see `iterate_images`.
        in_units: see `draw_pictures`.
    """
    batches = iterate_images(generator, count, seed, alpha, first, in_units=in_units)
    return np.concatenate([images for images, _ in batches])


def iterate_images(
    generator: TrainedGenerator,
    count: int,
    seed: int,
    alpha: float | None = None,
    first: int | None = None,
    labels: Sequence[int] = (),
    truncation: float | None = None,
    in_units: bool = False,
) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Yield images (n, H, W, C) and their labels, int64 (n,) or None, a batch at a time.

    Args:
        generator: the generator that draws them.
        count: number of latents, which depend on it and on `seed` alone.
        seed: the seed of latents and noise.
        alpha: alpha in [0, 1] instead of the generator's own where it stands within a fade.
        first: number of the latents of which images are drawn, the first ones; None: all.
        labels: the classes that the images of a conditional generator have in turn; none: all.
        truncation: see `TrainedGenerator.forward`.
        in_units: see `draw_pictures`.

    Raises:
        RunError: images are NaN or infinite, which uint8 would not show.
    """
    if first is None:
        first = count
    cycle = torch.tensor(labels or range(generator.classes), dtype=torch.int64)
    latent_seed = torch_generator(seed, "sample")

    # Noise within the network comes from torch's own generator, which is the caller's between the batches.
    noise_state = torch.Generator().manual_seed(seed).get_state()
    with report_activity("drawing images", first) as activity:
        for start in range(0, first, CHUNK):
            latents = torch.randn(min(CHUNK, count - start), generator.latent_size, generator=latent_seed)
            latents = latents[: first - start]
            own = None
            if len(cycle):
                own = cycle[torch.arange(start, start + len(latents)) % len(cycle)]
            with fork_random_numbers():
                torch.set_rng_state(noise_state)
                images = draw_pictures(generator, latents, own, alpha, truncation, in_units)
                noise_state = torch.get_rng_state()
            yield images, None if own is None else own.numpy()
            activity.advance(len(images))


@torch.no_grad()
def draw_pictures(
    generator: TrainedGenerator,
    latents: Tensor,
    labels: Tensor | None = None,
    alpha: float | None = None,
    truncation: float | None = None,
    in_units: bool = False,
    mixing: StyleMixing | None = None,
) -> np.ndarray:
    """Return images (N, H, W, C) of latents (N, Z).

    Args:
        generator: the generator that draws them.
        latents, labels: see `TrainedGenerator.forward`.
        alpha: alpha in [0, 1] instead of the generator's own where it stands within a fade.
        truncation: see `TrainedGenerator.forward`.
        in_units: whether they are in the units and the type of the data, and not as they are shown: uint8 (N, H, W, 1)
            or (N, H, W, 3), wider where channels are side by side.
        mixing: see `TrainedGenerator.forward`.

    Raises:
        RunError: images are NaN or infinite, which uint8 would not show.
    """
    # The images, in [-1, 1].
    pictures = generator(latents, labels, alpha, truncation, mixing)
    if not pictures.isfinite().all():
        raise RunError(
            f"the generator at images {generator.images} draws NaN or infinite numbers: there is nothing to show. Draw "
            "from an earlier checkpoint of its run"
        )

    # As the data are, or as people see them.
    if in_units:
        numbers: np.ndarray = generator.values.to_units(pictures).permute(0, 2, 3, 1).contiguous().cpu().numpy()
        return numbers
    return draw_channels(pictures, generator.pictures)

"""Draw images from a finished or running run, and write them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from pggan_kit.api.generator import load_generator
from pggan_kit.errors import ConfigError, RunError, check_at_least, check_seed, did_you_mean, suggest
from pggan_kit.pictures.channels import draw_channels
from pggan_kit.pictures.grid import image_grid
from pggan_kit.runs.generators import TrainedGenerator
from pggan_kit.runs.targets import require_target_outside_runs
from pggan_kit.system.activities import report_activity, track_items
from pggan_kit.system.devices import read_memory_mib
from pggan_kit.system.files import require_replaceable, write_atomically
from pggan_kit.system.seeding import seed_torch, torch_generator

SHOWN_NAMES = 10
"""Maximum number of class names in a message."""


def sample(
    run_dir: Path,
    count: int,
    seed: int,
    target: Path,
    plugins: Sequence[Any] = (),
    stage: str | int | None = None,
    image_class: str | int | None = None,
    average: str | float | Path | None = None,
    checkpoint: str = "last",
    truncation: float | None = None,
) -> TrainedGenerator:
    """Write `count` images of the averaged generator of a run or of a file.

    Args:
        run_dir: the run's folder, or what `pggan-kit export` wrote.
        count: number of images.
        seed: the seed of the latents; the same seed and count give the same images.
        target: `.npz` (one array `images`, N x H x W x C) or `.npy` (that array), both in the units and the type of the
            data; `.png` (a grid), else a folder of PNGs.
        plugins, stage, checkpoint: see `load_generator`.
        image_class: the class of all images, by its name or else its number from 0; None: labels, where there are any,
            go round 0, 1, ..., K - 1.
        average: see `load_generator`.
        truncation: see `TrainedGenerator.forward`.

    Returns:
        The generator that drew them.

    Raises:
        SettingError: `count`, `seed` or `truncation` is out of range.
        ConfigError: the network has no styles that could be truncated.
        RunError: the run cannot be read, no such stage has ended, there is no such class or average, the images are
            NaN or infinite, or the target cannot be written.
    """
    check_at_least("count", count, 1, whole=True)
    check_seed("seed", seed)
    # The target is checked before anything is drawn, which may take long.
    if target.suffix not in ("", ".npy", ".npz", ".png"):
        raise RunError(f"--out {target}: name an .npz, .npy or .png file, or a folder")
    require_target_outside_runs("--out", target)
    if target.suffix:
        require_replaceable(target)
    generator = load_generator(run_dir, stage=stage, average=average, checkpoint=checkpoint, plugins=plugins)
    label = None
    if image_class is not None:
        label = find_class(image_class, generator.classes, generator.class_names)
    _require_memory(generator, count)

    in_units = target.suffix in (".npy", ".npz")
    images = draw(generator, count, seed, label=label, truncation=truncation, in_units=in_units)
    if target.suffix == ".npz":
        buffer = io.BytesIO()
        with report_activity(f"compressing {count:,} images"):
            np.savez_compressed(buffer, images=images)
        _write_file(target, buffer.getvalue())
    elif target.suffix == ".npy":
        buffer = io.BytesIO()
        np.save(buffer, images)
        _write_file(target, buffer.getvalue())
    elif target.suffix == ".png":
        # As nearly square as whole rows allow.
        columns = int(np.ceil(count**0.5))
        buffer = io.BytesIO()
        image_grid(images, columns=columns).save(buffer, "PNG")
        _write_file(target, buffer.getvalue())
    else:
        _write_folder(images, target)
    return generator


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
    if wanted in names:
        return names.index(str(wanted))
    known = [*names, *map(str, range(classes))]
    if str(wanted) in known:
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
    """Check that the machine has memory for the latents and images of a sample.

    Raises:
        RunError: It has not.
    """
    try:
        memory = read_memory_mib(torch.device("cpu"))
    except ConfigError:  # this platform does not tell
        return
    image = draw(generator, 1, 0, in_units=True)
    needed = count * (image.nbytes + 4 * generator.latent_size) / 2**20
    if needed > memory:
        raise RunError(
            f"--count {count}: the images need {needed:,.0f} MiB, and this machine has {memory:,.0f} MiB; draw fewer"
        )


def draw(
    generator: TrainedGenerator,
    count: int,
    seed: int,
    batch: int = 250,
    alpha: float | None = None,
    label: int | None = None,
    truncation: float | None = None,
    first: int | None = None,
    in_units: bool = False,
) -> np.ndarray:
    """Return images of latents that depend on nothing but `seed` and `count`.

    Args:
        generator: the generator that draws them.
        count: N.
        seed: the seed of latents and noise.
        batch: number of images that are drawn at once.
        alpha: alpha in [0, 1] instead of the generator's own where it stands within a fade.
        label: the class of all images, of a conditional generator; None: they go round.
        truncation: see `TrainedGenerator.forward`.
        first: number of the latents of which images are drawn, the first ones; None: all.
        in_units: whether they are (N, H, W, C) in the units and the type of the data, and not as they are shown: uint8
            (N, H, W, 1) or (N, H, W, 3), wider where channels are side by side.

    Raises:
        RunError: images are NaN or infinite, which uint8 would not show.
    """
    latents = torch.randn(count, generator.latent_size, generator=torch_generator(seed, "sample"))
    if first is not None:
        latents = latents[:first]
        count = len(latents)
    labels = None
    if generator.classes:
        labels = torch.arange(count) % generator.classes
    if label is not None:
        labels = torch.full((count,), label)
    share = None
    if alpha is not None:
        share = torch.tensor(alpha)

    # Noise within the network comes from torch's own generator.
    seed_torch(seed)
    batches = []
    with torch.no_grad(), report_activity("drawing images", count) as activity:
        for start in range(0, count, batch):
            rows = slice(start, start + batch)
            batch_labels = None
            if labels is not None:
                batch_labels = labels[rows]
            pictures = generator(latents[rows], batch_labels, share, truncation)
            if not pictures.isfinite().all():
                raise RunError(
                    f"the generator at images {generator.images} draws NaN or infinite numbers: there is nothing to "
                    "show. Draw from the end of an earlier stage"
                )
            if in_units:
                batches.append(generator.values.to_units(pictures).permute(0, 2, 3, 1).contiguous().cpu().numpy())
            else:
                batches.append(draw_channels(pictures, generator.pictures))
            activity.advance(len(pictures))
    return np.concatenate(batches)


def _write_file(target: Path, content: bytes) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"--out {target}: cannot be written ({error.strerror})") from error
    write_atomically(target, content)


def _write_folder(images: np.ndarray, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for index, image in enumerate(track_items(images, f"writing images to {folder}", len(images))):
            pixels = image
            if image.shape[-1] == 1:  # gray
                pixels = image.squeeze(-1)
            path = folder / f"{index:06d}.png"
            require_replaceable(path)
            Image.fromarray(pixels).save(path)
    except OSError as error:
        raise RunError(f"--out {folder}: cannot be written ({error.strerror})") from error

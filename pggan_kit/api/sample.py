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
from pggan_kit.errors import RunError, check_at_least, check_seed
from pggan_kit.pictures.grid import image_grid, to_uint8
from pggan_kit.runs.generators import TrainedGenerator
from pggan_kit.system.files import write_atomically
from pggan_kit.system.seeding import torch_generator


def sample(
    run_dir: Path, count: int, seed: int, target: Path, plugins: Sequence[Any] = (), stage: str | int | None = None
) -> None:
    """Write `count` images of a run's averaged generator.

    Args:
        run_dir: the run's folder.
        count: number of images; labels, where there are any, go round 0, 1, ..., K - 1.
        seed: the seed of the latents; the same seed and count give the same images.
        target: `.npz` (one array `images`, uint8, N x H x W x C), `.png` (a grid), else a folder of PNGs.
        plugins, stage: see `load_generator`.

    Raises:
        SettingError: `count` or `seed` is out of range.
        RunError: the run cannot be read, no such stage has ended, or the target cannot be written.
    """
    check_at_least("count", count, 1, whole=True)
    check_seed("seed", seed)
    images = draw(load_generator(run_dir, stage=stage, plugins=plugins), count, seed)
    if target.suffix == ".npz":
        buffer = io.BytesIO()
        np.savez_compressed(buffer, images=images)
        _write_file(target, buffer.getvalue())
    elif target.suffix == ".png":
        # As nearly square as whole rows allow.
        columns = int(np.ceil(count**0.5))
        buffer = io.BytesIO()
        image_grid(images, columns=columns).save(buffer, "PNG")
        _write_file(target, buffer.getvalue())
    elif target.suffix:
        raise RunError(f"--out {target}: name an .npz file, a .png file or a folder")
    else:
        _write_folder(images, target)


def draw(
    generator: TrainedGenerator, count: int, seed: int, batch: int = 250, alpha: float | None = None
) -> np.ndarray:
    """Return images (N, H, W, C), uint8, of latents that depend on nothing but `seed` and `count`.

    Args:
        generator: the generator that draws them.
        count: N.
        seed: the seed of latents and noise.
        batch: number of images that are drawn at once.
        alpha: alpha in [0, 1] instead of the generator's own where it stands within a fade.
    """
    latents = torch.randn(count, generator.latent_size, generator=torch_generator(seed, "sample"))
    labels = None
    if generator.classes:
        labels = torch.arange(count) % generator.classes
    share = None
    if alpha is not None:
        share = torch.tensor(alpha)

    # Noise within the network comes from torch's own generator.
    torch.manual_seed(seed)
    batches = []
    with torch.no_grad():
        for start in range(0, count, batch):
            rows = slice(start, start + batch)
            batch_labels = None
            if labels is not None:
                batch_labels = labels[rows]
            batches.append(to_uint8(generator(latents[rows], batch_labels, share)))
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
        for index, image in enumerate(images):
            pixels = image
            if image.shape[-1] == 1:  # gray
                pixels = image.squeeze(-1)
            Image.fromarray(pixels).save(folder / f"{index:06d}.png")
    except OSError as error:
        raise RunError(f"--out {folder}: cannot be written ({error.strerror})") from error

"""Drawing images from a finished or running run."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from pggan_kit.api.generator import load_generator
from pggan_kit.errors import RunError
from pggan_kit.pictures.grid import image_grid, to_uint8
from pggan_kit.runs.generators import TrainedGenerator
from pggan_kit.system.files import write_atomically
from pggan_kit.system.seeding import torch_generator


def sample(
    run_dir: Path, count: int, seed: int, target: Path, plugins: Sequence[Any] = (), stage: str | int | None = None
) -> None:
    """Write `count` images of a run's averaged generator.

    Args:
        run_dir: the run.
        count: how many; labels, where there are any, go round 0, 1, ..., K - 1.
        seed: of the latents; the same seed and count give the same images.
        target: `.npz` (one array `images`, uint8, N x H x W x C), `.png` (a grid), else a folder of PNGs.
        plugins, stage: see `load_generator`.

    Raises:
        RunError: the run cannot be read, no such stage has ended, or the target cannot be written.
    """
    images = draw(load_generator(run_dir, stage=stage, plugins=plugins), count, seed)
    if target.suffix == ".npz":
        buffer = io.BytesIO()
        np.savez_compressed(buffer, images=images)
        _parent(target)
        write_atomically(target, buffer.getvalue())
    elif target.suffix == ".png":
        buffer = io.BytesIO()
        image_grid(images, columns=int(np.ceil(count**0.5))).save(buffer, "PNG")
        _parent(target)
        write_atomically(target, buffer.getvalue())
    elif target.suffix:
        raise RunError(f"--out {target}: name an .npz file, a .png file or a folder")
    else:
        _write_folder(images, target)


def draw(
    generator: TrainedGenerator, count: int, seed: int, batch: int = 250, alpha: float | None = None
) -> np.ndarray:
    """Return images (N, H, W, C), uint8, of latents that depend on nothing but `seed` and `count`.

    Args:
        generator: draws them.
        count: N.
        seed: of latents and noise.
        batch: images that are drawn at once.
        alpha: instead of the generator's own where it stands within a fade, in [0, 1].
    """
    share = None if alpha is None else torch.tensor(alpha)
    latents = torch.randn(count, generator.latent_size, generator=torch_generator(seed, "sample"))
    labels = torch.arange(count) % generator.classes if generator.classes else None
    torch.manual_seed(seed)
    with torch.no_grad():
        parts = [
            to_uint8(generator(latents[i : i + batch], None if labels is None else labels[i : i + batch], share))
            for i in range(0, count, batch)
        ]
    return np.concatenate(parts)


def _write_folder(images: np.ndarray, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for index, image in enumerate(images):
            Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(folder / f"{index:06d}.png")
    except OSError as error:
        raise RunError(f"--out {folder}: cannot be written ({error.strerror})") from error


def _parent(target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"--out {target}: cannot be written ({error.strerror})") from error

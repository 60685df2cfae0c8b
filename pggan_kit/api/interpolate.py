"""Write an animation of a run's generator along a smooth closed loop through latents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pggan_kit.api.image_writers import make_folder
from pggan_kit.api.sample import draw_pictures, find_classes, load_faded
from pggan_kit.errors import check_at_least, check_between, check_seed
from pggan_kit.layers.slerp import interpolate_loop
from pggan_kit.pictures.animation import require_format, write_animation
from pggan_kit.pictures.grid import CELL, tile
from pggan_kit.runs.generators import TrainedGenerator
from pggan_kit.runs.targets import require_target_outside_runs
from pggan_kit.system.activities import track_items
from pggan_kit.system.seeding import fork_random_numbers, torch_generator

LARGEST_FPS = 50
"""Maximum of frames per second: players show a GIF of shorter frames more slowly."""

SMALLEST_FPS = 0.01
"""Minimum of frames per second: a GIF shows a frame for up to 655 seconds."""

CELL_SIDE = 2 * CELL
"""Minimum width and height of an image in pixels."""


def interpolate(
    run_dir: Path,
    target: Path,
    *,
    keys: int = 6,
    steps: int = 24,
    fps: float = 24.0,
    count: int = 9,
    seed: int = 0,
    image_classes: Sequence[str | int] = (),
    truncation: float | None = None,
    alpha: float | None = None,
    **choice: Any,
) -> TrainedGenerator:
    """Write an animation of images along loops: spherical, smooth, and back at the first latent after the last.

    Args:
        run_dir: the run's folder.
        target: `.gif`, `.webp` or `.mp4`.
        keys: number of latents that each loop goes through.
        steps: number of frames from one of them to the next.
        fps: frames per second.
        count: number of loops side by side.
        seed: the seed of the latents, and of the noise, which is the same in all frames.
        image_classes: the classes that the loops have in turn; see `sample`.
        truncation: see `TrainedGenerator.forward`.
        alpha: see `load_faded`.
        choice: `stage`, `average`, `checkpoint` and `plugins` of `load_generator`.

    Raises:
        SettingError: a number is out of range.
        DataError: MP4 needs a library that is missing.
        RunError: see `sample`.
    """
    check_at_least("keys", keys, 2, whole=True)
    check_at_least("steps", steps, 1, whole=True)
    check_between("fps", fps, SMALLEST_FPS, LARGEST_FPS)
    check_at_least("count", count, 1, whole=True)
    check_seed("seed", seed)
    require_target_outside_runs("--out", target)
    require_format(target)
    generator = load_faded(run_dir, alpha, **choice)
    labels = find_classes(image_classes, generator) or list(range(generator.classes))

    # Frames are drawn one after another, while they are written.
    latents = torch.randn(keys, count, generator.latent_size, generator=torch_generator(seed, "interpolation"))
    frames = iterate_frames(generator, latents, steps, labels, truncation, seed)
    make_folder(target, target.parent)
    write_animation(track_items(frames, f"drawing {target}", keys * steps, "frames"), target, fps)
    return generator


def iterate_frames(
    generator: TrainedGenerator,
    latents: torch.Tensor,
    steps: int,
    labels: Sequence[int] = (),
    truncation: float | None = None,
    seed: int = 0,
) -> Iterator[np.ndarray]:
    """Yield frames uint8 (h, w, C) of loops side by side, each pixel enlarged to a square where images are small.

    Args:
        generator: the generator that draws them.
        latents: keys of the loops (K, N, Z).
        steps: number of frames from one key to the next.
        labels: the classes that the loops have in turn; none for an unconditional generator.
        truncation: see `TrainedGenerator.forward`.
        seed: the seed of the noise.
    """
    keys, count, _ = latents.shape
    own = None
    if labels:
        own = torch.tensor([labels[loop % len(labels)] for loop in range(count)])
    columns = int(np.ceil(count**0.5))
    for frame in range(keys * steps):
        # Noise that changed from frame to frame would flicker.
        with fork_random_numbers(seed=seed):
            images = draw_pictures(generator, interpolate_loop(latents, frame / steps), own, None, truncation)
        scale = -(-CELL_SIDE // min(images.shape[1:3]))
        yield tile(images, columns, scale)

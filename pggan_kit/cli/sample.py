"""The command `sample`, which draws images from a run."""

from __future__ import annotations

from pathlib import Path

import click

from pggan_kit.cli.base import PATH, SEED, add_drawing_options, describe_choice, main, print_message


@main.command()
@click.argument("run", type=PATH)
@click.option("--count", default=64, show_default=True, type=click.IntRange(min=1), help="Number of images.")
@click.option("--seed", default=0, show_default=True, type=SEED, help="Seed of the latents.")
@click.option("--out", "target", required=True, type=PATH, help="FILE.npz, FILE.npy, FILE.tar, FILE.png or a folder.")
@add_drawing_options
def sample(
    run: Path,
    count: int,
    seed: int,
    target: Path,
    classes: tuple[str, ...],
    truncation: float | None,
    alpha: float | None,
    stage: str | None,
    average: str | None,
    checkpoint: str,
    plugins: tuple[str, ...],
) -> None:
    """Draw images from a run's averaged generator.

    An .npz file holds `images`, N x H x W x C, in the units and the type of the data, and `labels` of a conditional
    generator; an .npy file holds the images alone; a .tar file PNGs, each with its label beside it; a .png file shows a
    grid; a name without a suffix is that of a folder of PNGs with a file labels.csv. PNGs of a .tar file or a folder
    are in the units of the data where these are bytes in 1 or 3 channels and `pictures` is not bound. All but the grid
    take no more memory for many images than for few.
    """
    from pggan_kit.api import sample as sampling
    from pggan_kit.api.image_writers import GRID

    generator = sampling.sample(
        run, count, seed, target, plugins, stage, classes, average, checkpoint, truncation, alpha
    )
    # What is shown may be other numbers than the data have.
    units = ""
    if target.suffix != GRID and not sampling.are_in_units(target, generator):
        units = ", as they are shown; an .npz or .npy file has them in the units of the data"
    print_message(f"wrote {count} images to {target}{describe_choice(generator.chosen)}{units}")

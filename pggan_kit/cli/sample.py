"""The command `sample`, which draws images from a run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

from pggan_kit.cli.base import (
    PATH,
    SEED,
    average_option,
    checkpoint_option,
    describe_choice,
    err,
    main,
    no_plugin_option,
    recorded_plugin_option,
    stage_option,
)


class Share(click.FloatRange):
    """A number from 0 to 1; Click's own range lets NaN pass."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number."""
        share: float = super().convert(value, param, ctx)
        if math.isnan(share):
            self.fail(f"{value} is no number from 0 to 1.", param, ctx)
        return share


SHARE = Share(0, 1)


@main.command()
@click.argument("run", type=PATH)
@click.option("--count", default=64, show_default=True, type=click.IntRange(min=1), help="Number of images.")
@click.option("--seed", default=0, show_default=True, type=SEED, help="Seed of the latents.")
@click.option("--out", "target", required=True, type=PATH, help="FILE.npz, FILE.npy, FILE.png or a folder.")
@click.option("--class", "image_class", help="Class of all images, by name or by number from 0. Default: all in turn.")
@click.option(
    "--truncation",
    type=SHARE,
    help="Share of each style's distance from the mean style that is kept, for networks with styles. Default: all.",
)
@stage_option
@average_option
@checkpoint_option
@recorded_plugin_option
@no_plugin_option
def sample(
    run: Path,
    count: int,
    seed: int,
    target: Path,
    image_class: str | None,
    truncation: float | None,
    stage: str | None,
    average: str | None,
    checkpoint: str,
    plugins: tuple[str, ...],
) -> None:
    """Draw images from a run's averaged generator.

    An .npz file holds one array `images`, N x H x W x C, in the units and the type of the data; an .npy file is that
    array; a .png file shows a grid; anything else is a folder of PNGs.
    """
    from pggan_kit.api import sample as sampling

    generator = sampling.sample(run, count, seed, target, plugins, stage, image_class, average, checkpoint, truncation)
    err.print(f"wrote {count} images to {target}{describe_choice(generator.chosen)}")

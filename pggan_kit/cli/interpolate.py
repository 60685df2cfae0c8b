"""The command `interpolate`, which draws an animation between latents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pggan_kit.cli.base import PATH, SEED, NumberRange, add_drawing_options, describe_choice, main, print_message


@main.command()
@click.argument("run", type=PATH)
@click.option("--out", "target", required=True, type=PATH, help="FILE.gif, FILE.webp or FILE.mp4.")
@click.option("--keys", default=6, show_default=True, type=click.IntRange(min=2), help="Latents of each loop.")
@click.option(
    "--steps", default=24, show_default=True, type=click.IntRange(min=1), help="Frames from one latent to the next."
)
@click.option("--fps", default=24.0, show_default=True, type=NumberRange(0.01, 50), help="Frames per second.")
@click.option("--count", default=9, show_default=True, type=click.IntRange(min=1), help="Loops side by side.")
@click.option("--seed", default=0, show_default=True, type=SEED, help="Seed of the latents.")
@add_drawing_options
def interpolate(run: Path, target: Path, classes: tuple[str, ...], **settings: Any) -> None:
    """Draw an animation along a smooth closed loop through several latents.

    Latents are interpolated on the sphere, and the last leads back to the first. MP4 needs the extra `video`.
    """
    from pggan_kit.api import interpolate as interpolation

    generator = interpolation.interpolate(run, target, image_classes=classes, **settings)
    print_message(f"wrote {target}{describe_choice(generator.chosen)}")

"""Commands that train, and that draw from what was trained."""

from __future__ import annotations

from pathlib import Path

import click

from pggan_kit.cli.base import DataProgress, err, experiment_options, main, no_plugin_option, say, stage_option


@main.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--run-dir", type=click.Path(path_type=Path), help="The run's folder; default: the next under runs/.")
@click.option(
    "--from",
    "start_from",
    metavar="RUN[@STAGE]",
    help="Go on from another run's last checkpoint, or from a stage's end: its number from 0, or its size.",
)
@experiment_options
def train(
    config: Path,
    run_dir: Path | None,
    start_from: str | None,
    bindings: tuple[str, ...],
    plugins: tuple[str, ...],
) -> None:
    """Train the experiment of a gin file."""
    from pggan_kit.api import train as train_module

    with DataProgress() as progress:
        train_module.train(
            config, bindings, run_dir=run_dir, plugins=plugins, data_progress=progress, start_from=start_from, say=say
        )


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--plugin", "plugins", multiple=True, metavar="FILE", help="Instead of the plugin files the run used.")
@no_plugin_option
def resume(run: Path, plugins: tuple[str, ...]) -> None:
    """Go on with a run from its last checkpoint."""
    from pggan_kit.api import train as train_module

    with DataProgress() as progress:
        train_module.resume(run, plugins=plugins, data_progress=progress, say=say)


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--count", default=64, show_default=True, type=click.IntRange(min=1), help="How many images.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Of the latents.")
@click.option("--out", "target", required=True, type=click.Path(path_type=Path), help="FILE.npz, FILE.png or a folder.")
@stage_option
@click.option("--plugin", "plugins", multiple=True, metavar="FILE", help="Instead of the plugin files the run used.")
@no_plugin_option
def sample(run: Path, count: int, seed: int, target: Path, stage: str | None, plugins: tuple[str, ...]) -> None:
    """Draw images from a run's averaged generator.

    An .npz file holds one array `images`, uint8, N x H x W x C; a .png file shows a grid; anything else is a folder of
    PNGs.
    """
    from pggan_kit.api import sample as sampling

    sampling.sample(run, count, seed, target, plugins, stage)
    err.print(f"wrote {count} images to {target}")

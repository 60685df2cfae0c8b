"""Commands that train, and that draw from what was trained."""

from __future__ import annotations

from pathlib import Path

import click

from pggan_kit.cli.base import DataProgress, experiment_options, main, no_plugin_option, say


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

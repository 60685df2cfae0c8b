"""The commands `train` and `resume`."""

from __future__ import annotations

from pathlib import Path

import click

from pggan_kit.cli.base import (
    PATH,
    PATH_TEXT,
    add_experiment_options,
    bindings_option,
    main,
    no_plugin_option,
    print_message,
    recorded_plugin_option,
)
from pggan_kit.cli.ranks import ranks_option, start_ranks


@main.command()
@click.argument("config", type=PATH)
@click.option("--run-dir", type=PATH, help="The run's folder; default: the next under runs/.")
@click.option(
    "--from",
    "start_from",
    type=PATH_TEXT,
    metavar="RUN[@STAGE]",
    help="Start from another run's last checkpoint, or from the end of a stage: its number from 0, or its size.",
)
@click.option(
    "--stem",
    type=PATH_TEXT,
    metavar="RUN[@STAGE]",
    help="Take the pieces of the stages up to this one from another run, whatever its other settings were.",
)
@ranks_option
@add_experiment_options
def train(
    config: Path,
    run_dir: Path | None,
    start_from: str | None,
    stem: str | None,
    ranks: int,
    bindings: tuple[str, ...],
    plugins: tuple[str, ...],
) -> None:
    """Train the experiment of a gin file."""
    with start_ranks(ranks):
        from pggan_kit.api import train as training

        training.train(
            config, bindings, run_dir=run_dir, plugins=plugins, start_from=start_from, stem=stem, say=print_message
        )


@main.command()
@click.argument("run", type=PATH)
@ranks_option
@bindings_option
@recorded_plugin_option
@no_plugin_option
def resume(run: Path, ranks: int, bindings: tuple[str, ...], plugins: tuple[str, ...]) -> None:
    """Continue a run from its last checkpoint.

    Settings that changed, here or in its config.gin, hold from there on and are recorded: the loss, rates, the switch,
    the seed, the folder of the data. The networks, the schedule and the images cannot change.
    """
    with start_ranks(ranks):
        from pggan_kit.api import train as training

        training.resume(run, bindings, plugins=plugins, say=print_message)

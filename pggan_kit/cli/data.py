"""The command group `data`, which makes resized copies of data sets."""

from __future__ import annotations

from pathlib import Path

import click

from pggan_kit.cli.base import PATH, DataProgress, add_experiment_options, main, out


@main.group()
def data() -> None:
    """Manage resized copies of data sets."""


@data.command("build")
@click.argument("config", type=PATH)
@add_experiment_options
def data_build(config: Path, bindings: tuple[str, ...], plugins: tuple[str, ...]) -> None:
    """Make copies of an experiment's data set at all of its sizes, ahead of training."""
    from pggan_kit.api import prepare as api
    from pggan_kit.system.cache import cache_folder

    prepared = api.prepare(config, bindings, plugins)
    schedule = prepared.schedule()
    with DataProgress() as progress:
        pyramid = prepared.data(schedule, progress)

    sizes = ", ".join(stage.size for stage in schedule.stages)
    skipped = ""
    if pyramid.skipped:
        skipped = f"; {pyramid.skipped:,} unreadable ones left out"
    folder = cache_folder(prepared.built.experiment.data.cache)
    out.print(f"{len(pyramid):,} images at {sizes} in {folder}{skipped}", highlight=False, soft_wrap=True)

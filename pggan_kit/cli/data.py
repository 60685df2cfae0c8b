"""The command group `data`."""

from __future__ import annotations

from pathlib import Path

import click

from pggan_kit.cli.base import DataProgress, experiment_options, main, out


@main.group()
def data() -> None:
    """Look after resized copies of data sets."""


@data.command("build")
@click.argument("config", type=click.Path(path_type=Path))
@experiment_options
def data_build(config: Path, bindings: tuple[str, ...], plugins: tuple[str, ...]) -> None:
    """Make the data set's copies at all of an experiment's sizes ahead of time."""
    from pggan_kit.api import prepare as api
    from pggan_kit.system.cache import cache_folder

    prepared = api.prepare(config, bindings, plugins)
    schedule = prepared.schedule()
    with DataProgress() as progress:
        made = prepared.data(schedule, progress)
    sizes = ", ".join(stage.size for stage in schedule.stages)
    skipped = f"; {made.skipped:,} broken ones left out" if made.skipped else ""
    folder = cache_folder(prepared.built.experiment.data.cache)
    out.print(f"{len(made):,} images at {sizes} in {folder}{skipped}", highlight=False, soft_wrap=True)

"""Commands that look at an experiment and train nothing."""

from __future__ import annotations

from pathlib import Path

import click

from pggan_kit.cli.base import DataProgress, escaped, experiment_options, main, out
from pggan_kit.system.json_text import json_text


@main.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print for machines.")
@experiment_options
def plan(config: Path, as_json: bool, bindings: tuple[str, ...], plugins: tuple[str, ...]) -> None:
    """Show stages, parameters, images, memory and time of an experiment; train nothing."""
    from pggan_kit.benchmarking import plan as planning

    rows = planning.plan(config, bindings, plugins)
    if as_json:
        click.echo(json_text(rows, indent=1))
    else:
        out.print(planning.table(rows))


@main.group()
def data() -> None:
    """Look after resized copies of data sets."""


@data.command("build")
@click.argument("config", type=click.Path(path_type=Path))
@experiment_options
def data_build(config: Path, bindings: tuple[str, ...], plugins: tuple[str, ...]) -> None:
    """Make the data set's copies at all of an experiment's sizes ahead of time."""
    from pggan_kit.api import prepare as api

    prepared = api.prepare(config, bindings, plugins)
    schedule = prepared.schedule()
    with DataProgress() as progress:
        made = prepared.data(schedule, progress)
    sizes = ", ".join(stage.size for stage in schedule.stages)
    skipped = f"; {made.skipped:,} broken ones left out" if made.skipped else ""
    folder = prepared.built.experiment.data.cache_folder()
    out.print(f"{len(made):,} images at {sizes} in {folder}{skipped}", highlight=False, soft_wrap=True)


@main.group()
def config() -> None:
    """Look at gin files."""


@config.command("check")
@click.argument("file", type=click.Path(path_type=Path))
@experiment_options
def config_check(file: Path, bindings: tuple[str, ...], plugins: tuple[str, ...]) -> None:
    """Build the experiment of a gin file, and say what is wrong or idle in it."""
    from pggan_kit.api import prepare as api

    prepared = api.prepare(file, bindings, plugins)
    schedule = prepared.schedule()
    prepared.hooks()
    prepared.state(schedule)
    for binding in prepared.built.idle:
        out.print(f"idle: {escaped(binding.text())}  ({binding.place})", highlight=False, soft_wrap=True)
    sizes = " -> ".join(stage.size for stage in schedule.stages)
    out.print(f"{file}: good; {sizes}, {schedule.total:,} images, {len(prepared.built.parts)} parts", highlight=False)


@config.command("show")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--operative", is_flag=True, help="All parameters in effect, defaults included, as gin text.")
@experiment_options
def config_show(file: Path, operative: bool, bindings: tuple[str, ...], plugins: tuple[str, ...]) -> None:
    """Show the bindings in effect and where each stands, includes and overrides resolved."""
    from pggan_kit.api import prepare as api
    from pggan_kit.config.builder import describe

    prepared = api.prepare(file, bindings, plugins)
    click.echo(prepared.built.operative if operative else "\n".join(describe(prepared.config)))

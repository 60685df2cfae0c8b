"""The command group `config`, which checks and shows gin files."""

from __future__ import annotations

import warnings
from pathlib import Path

import click

from pggan_kit.cli.base import PATH, add_experiment_options, main, out, replace_unprintable


@main.group()
def config() -> None:
    """Check or show gin files."""


@config.command("check")
@click.argument("file", type=PATH)
@add_experiment_options
def config_check(file: Path, bindings: tuple[str, ...], plugins: tuple[str, ...]) -> None:
    """Build the experiment of a gin file, and report errors and bindings without an effect."""
    from pggan_kit.api import prepare as api

    # Hooks and networks find errors that the file alone does not show.
    prepared = api.prepare(file, bindings, plugins)
    schedule = prepared.schedule()
    prepared.hooks()
    prepared.state(schedule)

    for line in prepared.list_warnings(schedule):
        warnings.warn(line, stacklevel=2)
    for binding in prepared.built.idle:
        out.print(f"idle: {replace_unprintable(binding.text())}  ({binding.place})", soft_wrap=True)
    sizes = " -> ".join(stage.size for stage in schedule.list_planned_stages())
    count = len(prepared.built.components)
    out.print(f"{file}: good; {sizes}, {schedule.total:,} images, {count} components", soft_wrap=True)


@config.command("show")
@click.argument("file", type=PATH)
@click.option("--operative", is_flag=True, help="Show all parameters in effect, defaults included, as gin text.")
@add_experiment_options
def config_show(file: Path, operative: bool, bindings: tuple[str, ...], plugins: tuple[str, ...]) -> None:
    """Show the bindings in effect and where each stands, with includes and overrides resolved."""
    from pggan_kit.api import prepare as api
    from pggan_kit.config.builder import list_bindings

    prepared = api.prepare(file, bindings, plugins)
    if operative:
        click.echo(prepared.built.operative)
    else:
        click.echo("\n".join(list_bindings(prepared.config)))

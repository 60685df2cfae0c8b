"""The command group `config`."""

from __future__ import annotations

from pathlib import Path

import click

from pggan_kit.cli.base import escaped, experiment_options, main, out


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

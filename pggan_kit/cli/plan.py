"""The command `plan`, which shows what an experiment will cost."""

from __future__ import annotations

from pathlib import Path

import click

from pggan_kit.cli.base import add_experiment_options, json_option, main, out
from pggan_kit.system.json_text import json_text


@main.command()
@click.argument("config", type=click.Path(path_type=Path))
@json_option
@add_experiment_options
def plan(config: Path, as_json: bool, bindings: tuple[str, ...], plugins: tuple[str, ...]) -> None:
    """Show stages, parameters, images, memory and time of an experiment; train nothing."""
    from pggan_kit.benchmarking import plan as planning

    rows = planning.plan(config, bindings, plugins)
    if as_json:
        click.echo(json_text(rows, indent=1))
    else:
        out.print(planning.build_table(rows))

"""The command `plan`, which shows what an experiment will cost."""

from __future__ import annotations

from pathlib import Path

import click

from pggan_kit.cli.base import PATH, add_experiment_options, json_option, main, print_json, print_table


@main.command()
@click.argument("config", type=PATH)
@json_option
@add_experiment_options
def plan(config: Path, as_json: bool, bindings: tuple[str, ...], plugins: tuple[str, ...]) -> None:
    """Show stages, parameters, images, memory and time of an experiment; train nothing."""
    from pggan_kit.benchmarking import plan as planning
    from pggan_kit.benchmarking.plan_table import build_table

    rows = planning.plan(config, bindings, plugins)
    if as_json:
        print_json(rows)
    else:
        print_table(build_table(rows))

"""The command `average`, which makes the average of another width."""

from __future__ import annotations

from pathlib import Path

import click
from rich.table import Table

from pggan_kit.cli.base import PATH, main, no_plugin_option, out, print_message, recorded_plugin_option, stage_option


@main.command()
@click.argument("run", type=PATH)
@click.option("--width", required=True, type=float, help="Standard deviation of the profile, from 0 to 0.288.")
@click.option(
    "--out",
    "target",
    default="average.pt",
    show_default=True,
    type=PATH,
    help="File to write, which --average takes.",
)
@stage_option
@recorded_plugin_option
@no_plugin_option
def average(run: Path, width: float, target: Path, stage: str | None, plugins: tuple[str, ...]) -> None:
    """Make a run's averaged generator of any width, after training.

    The run needs averages.PowerFunction among its train.averages. The width is a share of the age of each piece of the
    generator: 0.05 is shorter than 0.1. The error is the distance of the profile that was made from the one that was
    asked for, as a share of its norm.
    """
    from pggan_kit.api.average import write_average

    table = Table("pieces of stage", "averages kept", "error")
    for column in table.columns[1:]:
        column.justify = "right"
    for fit in write_average(run, width, target, stage=stage, plugins=plugins):
        table.add_row(fit.size, str(fit.count), f"{100 * fit.error:.2g} %")
    out.print(table)
    print_message(f"wrote {target}")

"""The command `report`, which draws runs and ablations."""

from __future__ import annotations

from pathlib import Path

import click

from pggan_kit.cli.base import PATH, main, print_message, recorded_plugin_option


@main.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=PATH)
@click.option(
    "--out",
    default="report.html",
    show_default=True,
    type=PATH,
    help="File to write.",
)
@click.option("--figures", type=PATH, help="Folder for PDFs and LaTeX tables.")
@recorded_plugin_option
def report(runs: tuple[Path, ...], out: Path, figures: Path | None, plugins: tuple[str, ...]) -> None:
    """Draw a report of runs, or of an ablation: one HTML file that needs no network.

    It shows images of each stage and each fade, curves, throughput, transitions and the configuration; several runs
    side by side, for the same latents.
    """
    from pggan_kit.report import write_report

    write_report(runs, out, figures=figures, plugins=plugins)
    written = f"wrote {out}"
    if figures is not None:
        written += f" and {figures}"
    print_message(written)

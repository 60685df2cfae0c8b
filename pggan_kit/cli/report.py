"""The command that draws reports."""

from __future__ import annotations

from pathlib import Path

import click

from pggan_kit.cli.base import err, main


@main.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out", default="report.html", show_default=True, type=click.Path(path_type=Path, dir_okay=False), help="The file."
)
@click.option("--figures", type=click.Path(path_type=Path, file_okay=False), help="A folder for PDFs and LaTeX tables.")
@click.option("--plugin", "plugins", multiple=True, metavar="FILE", help="Instead of the plugin files the runs used.")
def report(runs: tuple[Path, ...], out: Path, figures: Path | None, plugins: tuple[str, ...]) -> None:
    """Draw a report of runs, or of an ablation: one HTML file that needs no network.

    Pictures of each stage and of each fade, curves, throughput, transitions and configuration; several runs beside each
    other, for the same latents.
    """
    from pggan_kit.report import write_report

    write_report(runs, out, figures=figures, plugins=plugins)
    err.print(f"wrote {out}" + (f" and {figures}" if figures else ""), highlight=False, soft_wrap=True)

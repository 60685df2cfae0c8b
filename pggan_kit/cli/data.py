"""The command group `data`, which makes resized copies of data sets."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import click

from pggan_kit.cli.base import PATH, add_experiment_options, main, out

PLAIN: dict[str, Any] = {"highlight": False, "soft_wrap": True, "markup": False}
"""How lines with paths are printed: as they are."""


@main.group()
def data() -> None:
    """Manage resized copies of data sets."""


@data.command("build")
@click.argument("config", type=PATH)
@click.option("--out", "sheets", type=PATH, help="Folder for the sheets. Default: in the cache.")
@add_experiment_options
def data_build(config: Path, sheets: Path | None, bindings: tuple[str, ...], plugins: tuple[str, ...]) -> None:
    """Make copies of an experiment's data set at all of its sizes, ahead of training, and sheets to look at."""
    from pggan_kit.api import prepare as api
    from pggan_kit.data.contents import describe_contents
    from pggan_kit.runs.reals import write_sheets
    from pggan_kit.system.cache import cache_folder

    prepared = api.prepare(config, bindings, plugins)
    schedule = prepared.schedule()
    pyramid = prepared.data(schedule)

    experiment = prepared.built.experiment
    folder = cache_folder(experiment.data.cache)
    contents = describe_contents(experiment.dataset, pyramid.skipped)
    out.print(f"{contents}; at {', '.join(stage.size for stage in schedule.stages)} in {folder}", **PLAIN)

    # Sheets of the same data and resizing have the same folder.
    if sheets is None:
        name = hashlib.sha256(f"{pyramid.fingerprint} {experiment.data.filter}".encode()).hexdigest()[:16]
        sheets = folder / "sheets" / name
    sizes = [(stage.height, stage.width) for stage in schedule.stages]
    for path in write_sheets(pyramid, sizes, sheets):
        out.print(f"look at {path}", **PLAIN)

"""The command group `data`, which makes resized copies of data sets, lists them and removes them."""

from __future__ import annotations

import hashlib
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pggan_kit.cli.base import PATH, add_experiment_options, json_option, main, out, print_json, replace_unprintable
from pggan_kit.errors import UserError

if TYPE_CHECKING:
    from pggan_kit.data.cached_copies import Copies


@main.group()
def data() -> None:
    """Manage resized copies of data sets."""


@data.command("build")
@click.argument("config", type=PATH)
@click.option("--out", "sheets", type=PATH, help="Folder for the sheets. Default: in the cache.")
@add_experiment_options
def data_build(config: Path, sheets: Path | None, bindings: tuple[str, ...], plugins: tuple[str, ...]) -> None:
    """Make copies of an experiment's data set at all of its sizes, ahead of training, and sheets to look at.

    It says how many images there are, of which sizes, modes and classes, and which were left out, and why.
    """
    from pggan_kit.api import prepare as api
    from pggan_kit.data.contents import describe_contents
    from pggan_kit.data.pyramid import name_source
    from pggan_kit.runs.reals import write_sheets
    from pggan_kit.system.cache import cache_folder

    prepared = api.prepare(config, bindings, plugins)
    schedule = prepared.schedule()
    pyramid = prepared.data(schedule)

    experiment = prepared.built.experiment
    folder = cache_folder(experiment.data.cache)
    contents = describe_contents(experiment.dataset, pyramid.skipped)
    out.print(f"{contents}; at {', '.join(stage.size for stage in schedule.stages)} in {folder}", soft_wrap=True)
    for line in pyramid.take_census().list_lines(pyramid.class_names):
        out.print(line, soft_wrap=True)

    # Sheets of the same data and resizing have the same folder.
    if sheets is None:
        name = f"{pyramid.fingerprint} {experiment.data.filter}"
        if not pyramid.values.is_plain:
            name += f" {pyramid.values}"
        name = hashlib.sha256(name.encode()).hexdigest()[:16]
        # `data prune` removes them with the copies.
        sheets = folder / "sheets" / f"{name_source(pyramid.fingerprint)}-{name}"
    sizes = [(stage.height, stage.width) for stage in schedule.stages]
    for path in write_sheets(pyramid, sizes, experiment.pictures, sheets):
        out.print(f"look at {path}", soft_wrap=True)


cache_option = click.option(
    "--cache", type=PATH, help="Cache folder, as data.cache. Default: $PGGAN_KIT_CACHE, or else ~/.cache/pggan_kit."
)
"""Option of commands that look into the cache folder without a config."""


@data.command("list")
@cache_option
@json_option
def data_list(cache: Path | None, as_json: bool) -> None:
    """List the resized copies in the cache folder: whose they are, how large, and when they were last used.

    Their bytes are those of the copies and of the sheets that `data build` wrote there.
    """
    from rich.table import Table

    from pggan_kit.data.cached_copies import format_size, list_copies
    from pggan_kit.system.cache import cache_folder

    folder = cache_folder(cache)
    copies = list_copies(folder)
    if as_json:
        print_json([asdict(one) for one in copies])
        return
    if not copies:
        out.print(f"no resized copies in {folder}", soft_wrap=True)
        return

    # A row for each data set, and the sum.
    shown = Table("name", "data set", "images", "sizes", "size on disk", "last used", "state")
    for one in copies:
        notes = [note for note, holds in (("in use", one.in_use), ("unfinished", one.unfinished)) if holds]
        images = "?" if one.images is None else f"{one.images:,}"
        day = time.strftime("%Y-%m-%d", time.localtime(one.last_used))
        cells = (one.dataset or "?", images, ", ".join(one.sizes), format_size(one.bytes), day, ", ".join(notes))
        shown.add_row(one.name, *(replace_unprintable(cell) for cell in cells))
    out.print(shown)
    out.print(f"{format_size(sum(one.bytes for one in copies))} in {folder}", soft_wrap=True)


@data.command("prune")
@click.argument("names", nargs=-1)
@click.option(
    "--older-than", type=click.IntRange(0, 100_000), metavar="DAYS", help="Remove what was not used for this many days."
)
@click.option("--all", "remove_all", is_flag=True, help="Remove all.")
@cache_option
@json_option
def data_prune(
    names: tuple[str, ...], older_than: int | None, remove_all: bool, cache: Path | None, as_json: bool
) -> None:
    """Remove resized copies from the cache folder: those of these NAMES, as `data list` shows them, or all old ones.

    Their sheets are removed with them. Copies that a process uses or makes stay. What is needed again is made again.
    """
    from pggan_kit.data.cached_copies import choose_copies, format_size, list_copies, remove_copies
    from pggan_kit.system.cache import cache_folder

    if remove_all and (names or older_than is not None):
        raise UserError("--all removes all resized copies: leave it out, or the names and --older-than")
    if not (names or remove_all or older_than is not None):
        raise UserError("say what to remove: names that `pggan-kit data list` shows, --older-than DAYS, or --all")

    # In the order of the list, and each is checked again at the moment when it is removed.
    folder = cache_folder(cache)
    removed: list[Copies] = []
    kept: list[Copies] = []
    for one in choose_copies(list_copies(folder), names, older_than):
        gone = remove_copies(folder, one.name)
        (removed if gone else kept).append(one)
        if not as_json:
            verb = "removed" if gone else "kept, as it is in use:"
            out.print(f"{verb} {one.name} {one.dataset or '?'}, {format_size(one.bytes)}", soft_wrap=True)
    if as_json:
        print_json({"removed": [asdict(one) for one in removed], "kept": [asdict(one) for one in kept]})
    elif not removed and not kept:
        out.print(f"nothing to remove in {folder}", soft_wrap=True)

"""The command `neighbours`, which finds the training images nearest to samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pggan_kit.cli.base import (
    PATH,
    SEED,
    average_option,
    bindings_option,
    checkpoint_option,
    classes_option,
    json_option,
    main,
    no_plugin_option,
    out,
    print_json,
    print_message,
    recorded_plugin_option,
    stage_option,
    truncation_option,
)


@main.command()
@click.argument("run", type=PATH)
@click.option("--out", "target", required=True, type=PATH, help="FILE.png.")
@click.option("--distances", "table", type=PATH, help="FILE.json or FILE.csv for the distances.")
@click.option("--count", default=8, show_default=True, type=click.IntRange(min=1), help="Number of samples.")
@click.option("--nearest", default=5, show_default=True, type=click.IntRange(min=1), help="Neighbours of each.")
@click.option("--seed", default=0, show_default=True, type=SEED, help="Seed of the latents.")
@click.option("--features", metavar="NAME", help="Compare these features, such as Digits, and not pixels.")
@bindings_option
@classes_option
@truncation_option
@stage_option
@average_option
@checkpoint_option
@json_option
@recorded_plugin_option
@no_plugin_option
def neighbours(
    run: Path, target: Path, table: Path | None, classes: tuple[str, ...], as_json: bool, **settings: Any
) -> None:
    """Find the training images nearest to samples: does the generator memorise?

    A row of the picture has a sample and then its neighbours, the nearest first. It memorises where samples are nearer
    to training images than training images are to one another.
    """
    from pggan_kit.api.neighbours import find_neighbours, require_tables, write_neighbours

    # A wrong name of a file shows before the search.
    require_tables(target, table)
    found = find_neighbours(run, image_classes=classes, **settings)
    write_neighbours(found, target, table)

    # The medians: of samples, and of training images to compare with.
    summary = found.summarize()
    if as_json:
        print_json(summary)
    else:
        out.print(f"median distance of a sample from the nearest training image: {summary['median']:.4g}")
        out.print(
            f"median distance of a training image from the nearest other one: {summary['median_of_reals']:.4g}",
        )
    print_message(f"wrote {target}")

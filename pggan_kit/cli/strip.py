"""The command `strip`, which draws the same latents at every stage."""

from __future__ import annotations

from pathlib import Path

import click

from pggan_kit.cli.base import (
    PATH,
    SEED,
    classes_option,
    main,
    no_plugin_option,
    print_message,
    recorded_plugin_option,
    truncation_option,
)


@main.command()
@click.argument("run", type=PATH)
@click.option("--out", "target", required=True, type=PATH, help="FILE.png.")
@click.option("--count", default=4, show_default=True, type=click.IntRange(min=1), help="Number of latents.")
@click.option("--seed", default=0, show_default=True, type=SEED, help="Seed of the latents.")
@click.option(
    "--steps", default=5, show_default=True, type=click.IntRange(min=0), help="Alphas of each fade; 0 for none."
)
@classes_option
@truncation_option
@click.option("--average", metavar="NAME", help="Use this average; default: the first of train.averages.")
@recorded_plugin_option
@no_plugin_option
def strip(
    run: Path,
    target: Path,
    count: int,
    seed: int,
    steps: int,
    classes: tuple[str, ...],
    truncation: float | None,
    average: str | None,
    plugins: tuple[str, ...],
) -> None:
    """Draw the same latents at the end of every stage, and through the fades between them.

    Rows are latents, columns the growth from left to right.
    """
    from pggan_kit.api.strip import write_strip

    columns = write_strip(
        run,
        target,
        count=count,
        seed=seed,
        steps=steps,
        average=average,
        image_classes=classes,
        truncation=truncation,
        plugins=plugins,
    )
    print_message(f"wrote {target}: {len(columns)} columns")

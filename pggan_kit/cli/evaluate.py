"""The command `evaluate`, which computes metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.table import Table

from pggan_kit.cli.base import (
    PATH,
    add_experiment_options,
    average_option,
    checkpoint_option,
    describe_choice,
    json_option,
    main,
    out,
    print_json,
    print_message,
    stage_option,
)


@main.command()
@click.argument("run", type=PATH)
@click.argument("against", type=PATH, required=False)
@click.option("--metric", "metrics", multiple=True, metavar="NAME", help="Use this instead of the run's train.metrics.")
@click.option("--count", type=click.IntRange(min=2), help="Number of images; default: evaluation.count.")
@stage_option
@average_option
@click.option(
    "--tuning", multiple=True, metavar="BINDING", help="With --average best: choose the width under this binding."
)
@checkpoint_option
@json_option
@add_experiment_options
def evaluate(
    run: Path,
    against: Path | None,
    metrics: tuple[str, ...],
    count: int | None,
    stage: str | None,
    average: str | None,
    tuning: tuple[str, ...],
    checkpoint: str,
    as_json: bool,
    bindings: tuple[str, ...],
    plugins: tuple[str, ...],
) -> None:
    """Measure a run's averaged generator, or the images of one folder (or .npz file) AGAINST those of another.

    Bindings may choose and configure metrics, features, the evaluation and its data set:

    -b 'train.metrics = [@metrics.FrechetDistance()]' -b 'metrics.FrechetDistance.features = @features.Digits()'
    """
    from pggan_kit.api import evaluate as evaluation

    rows = evaluation.evaluate(
        run,
        against,
        metrics=metrics,
        bindings=bindings,
        plugins=plugins,
        stage=stage,
        average=average,
        checkpoint=checkpoint,
        count=count,
        tuning=tuning,
    )

    # What was chosen among several is said beside the values.
    if tuning:
        width = rows[0]["average"].removeprefix("width_")
        print_message(f"the average of width {width}, which was the best of {len(evaluation.WIDTHS)} under --tuning")
    if as_json:
        print_json(rows)
    else:
        out.print(_build_table(rows))
        chosen = rows[0].get("chosen", {})
        if chosen:
            own = f"its own {chosen['metric']} is no fair estimate"
            print_message(f"the best checkpoint{describe_choice(chosen)}: {own}")


def _build_table(rows: list[dict[str, Any]]) -> Table:
    table = Table("metric", "value", "noise floor", "size", "fakes", "reals per half")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(
            row["metric"],
            f"{row['value']:.4g}",
            "" if row["floor"] is None else f"{row['floor']:.4g}",
            row["size"],
            "" if row["count"] is None else f"{row['count']:,}",
            "" if row["floor_count"] is None else f"{row['floor_count']:,}",
        )
    return table

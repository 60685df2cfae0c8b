"""The command `export`, which writes a run's generator for use elsewhere."""

from __future__ import annotations

from pathlib import Path

import click

from pggan_kit.cli.base import (
    PATH,
    average_option,
    checkpoint_option,
    main,
    no_plugin_option,
    print_message,
    recorded_plugin_option,
    stage_option,
)


@main.command()
@click.argument("run", type=PATH)
@click.option(
    "--to",
    default="safetensors",
    show_default=True,
    type=click.Choice(["safetensors", "onnx", "hub-folder"]),
    help="Format of the file or folder.",
)
@click.option("--out", "target", type=PATH, help="File or folder to write; default: named after the run.")
@click.option(
    "--dtype",
    default="float32",
    show_default=True,
    type=click.Choice(["float32", "float16", "bfloat16"]),
    help="Precision of the weights in safetensors files.",
)
@click.option("--licence", help="Licence of the generator, for the model card.")
@click.option("--data-licence", help="Licence of the training data, for the model card.")
@stage_option
@average_option
@checkpoint_option
@recorded_plugin_option
@no_plugin_option
def export(
    run: Path,
    to: str,
    target: Path | None,
    dtype: str,
    licence: str | None,
    data_licence: str | None,
    stage: str | None,
    average: str | None,
    checkpoint: str,
    plugins: tuple[str, ...],
) -> None:
    """Write a run's averaged generator for use without the run.

    safetensors: one file that `load_generator` and `sample` read, without pickles. onnx: for other software, with any
    number of latents. hub-folder: the first with a config, samples and a model card, for a hub of models.
    """
    from pggan_kit.api.export import export as write

    write(
        run,
        to,
        target,
        stage=stage,
        average=average,
        checkpoint=checkpoint,
        dtype=dtype,
        licence=licence,
        data_licence=data_licence,
        plugins=plugins,
        say=print_message,
    )

"""The command `import`, which makes a run of networks that another project has trained."""

from __future__ import annotations

from pathlib import Path

import click

from pggan_kit.cli.base import PATH, add_experiment_options, main, print_message


@main.command("import")
@click.argument("file", type=PATH)
@click.option("--run-dir", type=PATH, help="The run's folder; default: the next under runs/.")
@add_experiment_options
def import_weights(file: Path, run_dir: Path | None, bindings: tuple[str, ...], plugins: tuple[str, ...]) -> None:
    """Make a run of a checkpoint of another project.

    The run can be sampled and evaluated, and `train --from` and `--stem` go on with its networks. Which projects are
    known depends on the plugins; the shipped one reads the progressive GAN of facebookresearch/pytorch_GAN_zoo.
    """
    from pggan_kit.api.import_weights import import_weights as make_run

    make_run(file, bindings, run_dir=run_dir, plugins=plugins, say=print_message)

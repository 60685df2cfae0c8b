"""Commands that compare variants of an experiment."""

from __future__ import annotations

from pathlib import Path

import click

from pggan_kit.cli.base import err, escaped, experiment_options, main, out
from pggan_kit.system.json_text import json_text


@main.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Show trials, images and cost; train nothing.")
@click.option("--out", "folder", type=click.Path(path_type=Path), help="The ablation's folder; default: runs/NAME.")
@click.option("--launcher", metavar="NAME", help="Where trials run: Local, or another one of `plugins list`.")
@click.option("--json", "as_json", is_flag=True, help="Print the analysis, or the cost, for machines.")
@experiment_options
def ablate(
    config: Path,
    dry_run: bool,
    folder: Path | None,
    launcher: str | None,
    as_json: bool,
    bindings: tuple[str, ...],
    plugins: tuple[str, ...],
) -> None:
    """Train variants of an experiment with several seeds, and compare them as the gin file plans it.

    Stop it and start it again at will. -b overrides what the file binds; a binding of anything but ablate and launchers
    goes to the experiments of all variants.
    """
    from pggan_kit import ablation
    from pggan_kit.ablation.cost import cost, table

    if launcher is not None:
        bindings = (*bindings, f"ablate.launcher = @launchers.{launcher}()")
    if dry_run:
        plan, rows = cost(config, bindings, plugins)
        if as_json:
            click.echo(json_text(rows, indent=1))
        else:
            out.print(table(plan, rows))
        return

    def say(line: str) -> None:
        err.print(escaped(line), soft_wrap=True, highlight=False)

    found = ablation.ablate(config, bindings, out=folder, plugins=plugins, say=say)
    click.echo(json_text(found, indent=1) if as_json else ablation.text(found), nl=as_json)


@main.command(hidden=True)
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("variant")
@click.argument("seed", type=int)
@click.option("--plugin", "plugins", multiple=True, metavar="FILE", help="A plugin file of the plan that you trust.")
def trial(folder: Path, variant: str, seed: int, plugins: tuple[str, ...]) -> None:
    """Bring one trial of an ablation to its end: what launchers run."""
    from pggan_kit.ablation import trial as trials

    result = trials.run(folder, variant, seed, plugins)
    err.print(escaped(f"{variant} {seed}: {result['failed'] or 'done'}"), soft_wrap=True, highlight=False)

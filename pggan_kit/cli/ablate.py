"""The commands that compare variants of an experiment: `ablate`, and `trial`, which launchers run."""

from __future__ import annotations

import contextlib
from pathlib import Path

import click

from pggan_kit.cli.base import (
    PATH,
    PATH_TEXT,
    SEED,
    add_experiment_options,
    json_option,
    main,
    out,
    print_json,
    print_message,
)


@main.command()
@click.argument("config", type=PATH)
@click.option("--dry-run", is_flag=True, help="Show trials, cost and what each contrast can detect; train nothing.")
@click.option("--out", "folder", type=PATH, help="The ablation's folder; default: runs/NAME.")
@click.option("--launcher", metavar="NAME", help="What runs the trials: Local, or another launcher of `plugins list`.")
@json_option
@add_experiment_options
def ablate(
    config: Path,
    dry_run: bool,
    folder: Path | None,
    launcher: str | None,
    as_json: bool,
    bindings: tuple[str, ...],
    plugins: tuple[str, ...],
) -> None:
    """Train variants of an experiment with several seeds, and compare them by the rules of the gin file.

    Stop it at any time and start it again with the same command. -b overrides what the file binds: ablate, launchers
    and its macros; all other bindings apply to the experiments of all variants.
    """
    from pggan_kit import ablation
    from pggan_kit.ablation.cost import build_contrast_table, build_cost_table, describe_cost

    # The option is a short form of a binding.
    if launcher is not None:
        bindings = (*bindings, f"ablate.launcher = @launchers.{launcher}()")

    if dry_run:
        plan, rows = ablation.estimate_cost(config, bindings, plugins)
        if as_json:
            print_json(describe_cost(plan, rows))
        else:
            out.print(build_cost_table(plan, rows))
            out.print(build_contrast_table(plan))
        return

    analysis = ablation.ablate(config, bindings, out=folder, plugins=plugins, say=print_message)
    if as_json:
        print_json(analysis)
    else:
        click.echo(ablation.render_text(analysis), nl=False)


@main.command(hidden=True)
@click.argument("folder", type=PATH)
@click.argument("variant")
@click.argument("seed", type=SEED)
@click.option(
    "--plugin",
    "plugins",
    multiple=True,
    type=PATH_TEXT,
    metavar="FILE",
    help="A plugin file of the plan that you trust.",
)
@click.option("--with-ablate", is_flag=True, help="Stop when no ablate works in the folder any more.")
def trial(folder: Path, variant: str, seed: int, plugins: tuple[str, ...], with_ablate: bool) -> None:
    """Run one trial of an ablation to its end. Launchers run this command."""
    from pggan_kit.ablation.trial import run_trial, stop_with_ablate

    with contextlib.ExitStack() as stack:
        if with_ablate:
            stack.enter_context(stop_with_ablate(folder, print_message))
        result = run_trial(folder, variant, seed, plugins, say=print_message)
    print_message(f"{variant} {seed}: {result['failed'] or 'done'}")

"""The commands that search for values of parameters: `sweep`, and `sweep-trial`, which launchers run."""

from __future__ import annotations

import contextlib
from pathlib import Path

import click

from pggan_kit.cli.base import (
    PATH,
    add_experiment_options,
    bind_launcher,
    json_option,
    launcher_option,
    main,
    print_json,
    print_message,
    print_table,
    trusted_plugin_option,
)


@main.command()
@click.argument("config", type=PATH)
@click.option("--dry-run", is_flag=True, help="Show the parameters, the trials and their cost; train nothing.")
@click.option("--out", "folder", type=PATH, help="The sweep's folder, which machines may share; default: runs/NAME.")
@launcher_option
@json_option
@add_experiment_options
def sweep(
    config: Path,
    dry_run: bool,
    folder: Path | None,
    launcher: str | None,
    as_json: bool,
    bindings: tuple[str, ...],
    plugins: tuple[str, ...],
) -> None:
    """Search for the values of an experiment's parameters with which it ends best; write them to best.gin.

    Stop it at any time and start it again with the same command; other machines may start it too, with the same --out.
    -b overrides what the file binds: sweep, launchers and its macros; all other bindings apply to the experiment.
    """
    from pggan_kit import sweeps
    from pggan_kit.errors import quote_path
    from pggan_kit.sweeps.conduct import BEST_CONFIG
    from pggan_kit.sweeps.cost import build_plan_table
    from pggan_kit.trials.settings_files import choose_folder

    # A dry run builds the experiments and trains nothing.
    bindings = bind_launcher(bindings, "sweep", launcher)
    if dry_run:
        plan, cost = sweeps.estimate_cost(config, bindings, plugins)
        if as_json:
            ranges = {name: own_range.record() for name, own_range in plan.space.items()}
            print_json({"parameters": ranges, "trials": plan.trials, "hash": plan.hash, **cost})
        else:
            print_table(build_plan_table(plan, cost))
        return

    # The search, from wherever it was stopped.
    best = sweeps.sweep(config, bindings, out=folder, plugins=plugins, say=print_message)
    if as_json:
        print_json(best)
    else:
        click.echo(f"trial {best['trial']} is the best of {best['trials']}: {best['metric']} {best['value']:.4g}")
        for text in best["bindings"]:
            click.echo(f"  {text}")
        click.echo(f"train it: pggan-kit train {quote_path(choose_folder(config, folder) / BEST_CONFIG)}")


@main.command("sweep-trial", hidden=True)
@click.argument("folder", type=PATH)
@click.option("--owner", type=PATH, help="Stop when nobody holds the lock of this file any more.")
@trusted_plugin_option
def sweep_trial(folder: Path, owner: Path | None, plugins: tuple[str, ...]) -> None:
    """Run the next trial of a sweep to its end. Launchers run this command."""
    from pggan_kit.sweeps.trial import run_next_trial
    from pggan_kit.trials.processes import stop_with_owner

    with contextlib.ExitStack() as stack:
        if owner is not None:
            stack.enter_context(stop_with_owner(owner, "sweep", print_message))
        run_next_trial(folder, plugins, say=print_message)

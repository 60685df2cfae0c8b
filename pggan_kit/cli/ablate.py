"""The commands that compare variants of an experiment: the group `ablate`, and `trial`, which launchers run."""

from __future__ import annotations

import contextlib
from pathlib import Path

import click

from pggan_kit.cli.base import (
    PATH,
    SEED,
    DefaultGroup,
    add_experiment_options,
    bind_launcher,
    json_option,
    launcher_option,
    main,
    out,
    print_json,
    print_message,
    print_table,
    trusted_plugin_option,
)
from pggan_kit.errors import UserError


@main.group(cls=DefaultGroup, options_metavar="CONFIG", subcommand_metavar="[OPTIONS]")
def ablate() -> None:
    """Train and compare variants of an experiment (ablate CONFIG), or compare what has ended (ablate analyse FOLDER).

    Stop it at any time and start it again with the same command. -b overrides what the file binds: ablate, launchers
    and its macros; all other bindings apply to the experiments of all variants.
    """


@ablate.command("run")
@click.argument("config", type=PATH)
@click.option("--dry-run", is_flag=True, help="Show trials, cost and what each contrast can detect; train nothing.")
@click.option("--out", "folder", type=PATH, help="The ablation's folder; default: runs/NAME.")
@launcher_option
@click.option(
    "--adopt", multiple=True, type=PATH, metavar="RUN", help="Let this finished run take the place of its trial."
)
@json_option
@add_experiment_options
def ablate_run(
    config: Path,
    dry_run: bool,
    folder: Path | None,
    launcher: str | None,
    adopt: tuple[Path, ...],
    as_json: bool,
    bindings: tuple[str, ...],
    plugins: tuple[str, ...],
) -> None:
    """Train variants of an experiment with several seeds, and compare them by the rules of the gin file."""
    from pggan_kit import ablation
    from pggan_kit.ablation.cost import build_contrast_table, build_cost_table, describe_cost

    # A dry run builds the experiments and trains nothing.
    bindings = bind_launcher(bindings, "ablate", launcher)
    if dry_run:
        if adopt:
            raise UserError("--adopt and --dry-run exclude each other: a dry run looks at no runs")
        plan, rows = ablation.estimate_cost(config, bindings, plugins, folder)
        if as_json:
            print_json(describe_cost(plan, rows))
        else:
            for table in (build_cost_table(plan, rows), build_contrast_table(plan)):
                for part in table.stack(out.width):
                    print_table(part)
        return

    # The trials, from wherever they were stopped, and what they come to.
    analysis = ablation.ablate(config, bindings, out=folder, plugins=plugins, say=print_message, adopt=adopt)
    if as_json:
        print_json(analysis)
    else:
        click.echo(ablation.render_text(analysis), nl=False)


@ablate.command("analyse")
@click.argument("folder", type=PATH)
@click.option(
    "--evaluate-again",
    "name",
    metavar="NAME",
    help="Measure the runs in another way first; written to analyses/NAME, and always exploratory.",
)
@click.option(
    "-b", "bindings", multiple=True, metavar="BINDING", help="With --evaluate-again: override ablate.evaluation."
)
@click.option(
    "--average",
    "averages",
    multiple=True,
    metavar="NAME|WIDTH",
    help="With --evaluate-again: use this average; if named several times, the others beside it.",
)
@click.option(
    "--curve",
    "curves",
    multiple=True,
    metavar="METRIC",
    help="With --evaluate-again: reduce this value at ticks to endpoints. With curves alone, nothing is measured.",
)
@click.option(
    "--quality",
    "qualities",
    multiple=True,
    metavar="METRIC=VALUE",
    help="With --evaluate-again: count the images until a curve reaches this value.",
)
@click.option("--primary", metavar="METRIC", help="With --evaluate-again: compare this value first.")
@click.option("--margin", type=float, help="With --evaluate-again: the largest difference that counts as none.")
@json_option
@trusted_plugin_option
def ablate_analyse(
    folder: Path,
    name: str | None,
    bindings: tuple[str, ...],
    averages: tuple[str, ...],
    curves: tuple[str, ...],
    qualities: tuple[str, ...],
    primary: str | None,
    margin: float | None,
    as_json: bool,
    plugins: tuple[str, ...],
) -> None:
    """Compare the trials of an ablation that have ended; train nothing.

    While some have not ended, no contrast has a verdict, and nothing is written. Results without runs are enough.
    """
    from pggan_kit import ablation

    if name is None:
        # The planned analysis is what was planned: it takes no options.
        if bindings or averages or curves or qualities or plugins or (primary, margin) != (None, None):
            raise UserError(
                "-b, --average, --curve, --quality, --primary, --margin and --plugin need --evaluate-again NAME"
            )
        analysis = ablation.analyse(folder)
    else:
        chosen = [_read_average(text) for text in averages]
        quality = dict(_read_quality(text) for text in qualities)
        if len(quality) < len(qualities):
            raise UserError(f"--quality must name each curve once, not {', '.join(qualities)}")
        analysis = ablation.evaluate_again(
            folder,
            name,
            bindings,
            average=chosen[0] if chosen else None,
            averages=chosen[1:],
            curves=curves,
            quality=quality,
            primary=primary,
            margin=margin,
            plugins=plugins,
        )
    if as_json:
        print_json(analysis)
    else:
        click.echo(ablation.render_text(analysis), nl=False)


def _read_average(text: str) -> str | float:
    """Return the width that a text is, or the name."""
    try:
        return float(text)
    except ValueError:
        return text


def _read_quality(text: str) -> tuple[str, float]:
    """Return the name of a curve and the value to reach.

    Raises:
        UserError: The text is not METRIC=VALUE.
    """
    name, _, value = text.rpartition("=")
    try:
        return name, float(value)
    except ValueError:
        raise UserError(f"--quality {text}: write METRIC=VALUE, as FID=10") from None


@main.command(hidden=True)
@click.argument("folder", type=PATH)
@click.argument("variant")
@click.argument("seed", type=SEED)
@trusted_plugin_option
@click.option("--with-ablate", is_flag=True, help="Stop when no ablate works in the folder any more.")
def trial(folder: Path, variant: str, seed: int, plugins: tuple[str, ...], with_ablate: bool) -> None:
    """Run one trial of an ablation to its end. Launchers run this command."""
    from pggan_kit.ablation.trial import run_trial, stop_with_ablate

    with contextlib.ExitStack() as stack:
        if with_ablate:
            stack.enter_context(stop_with_ablate(folder, print_message))
        result = run_trial(folder, variant, seed, plugins, say=print_message)
    print_message(f"{variant} {seed}: {result['failed'] or 'done'}")

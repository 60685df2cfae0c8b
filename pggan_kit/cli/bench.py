"""Commands that measure."""

from __future__ import annotations

from pathlib import Path

import click

from pggan_kit.cli.base import FAILED, escaped, experiment_options, main, out, say
from pggan_kit.errors import UserError
from pggan_kit.system.json_text import json_text


class Bench(click.Group):
    """`bench CONFIG` measures; `bench compare A.json B.json` is a command of its own."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """What begins with no command of ours is `run`'s."""
        ours = not args or args[0] in (*self.commands, *ctx.help_option_names)
        return super().parse_args(ctx, args if ours else ["run", *args])

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Those of `run`, which are ours where no command is named."""
        self.commands["run"].format_options(ctx, formatter)
        self.format_commands(ctx, formatter)


@main.group(cls=Bench, options_metavar="CONFIG", subcommand_metavar="[OPTIONS]")
def bench() -> None:
    """Measure an experiment's stages (bench CONFIG), or compare two such reports (bench compare A.json B.json)."""


@bench.command("run")
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--stages", default="", metavar="SIZES", help="Some of them: sizes or numbers from 0, as 8x8,16x16.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the report there.")
@click.option(
    "--against", multiple=True, metavar="FILE.py:FUNCTION", help="A foreign contender; ratios are to the first."
)
@click.option(
    "--variant", "variants", multiple=True, metavar="NAME=BINDING[;BINDING]", help="Measure this variant as well."
)
@click.option("--rounds", default=6, show_default=True, help="Turns of each contender at each stage.")
@experiment_options
def bench_run(
    config: Path,
    stages: str,
    json_file: Path | None,
    against: tuple[str, ...],
    variants: tuple[str, ...],
    rounds: int,
    bindings: tuple[str, ...],
    plugins: tuple[str, ...],
) -> None:
    """Measure whole training iterations at each stage, steady and mid-fade, on noise; train nothing."""
    from pggan_kit.benchmarking import tables
    from pggan_kit.benchmarking.bench import bench
    from pggan_kit.benchmarking.contenders import named_variant

    others = [named_variant(text) for text in variants]
    if len(dict(others)) < len(others):
        raise UserError("--variant: two have the same name")
    if json_file is not None and not json_file.parent.is_dir():
        raise UserError(f"--json {json_file}: there is no folder {json_file.parent}")
    report = bench(
        config,
        bindings,
        plugins,
        stages=[name.strip() for name in stages.split(",") if name.strip()],
        others=dict(others),
        against=against,
        rounds=rounds,
        progress=say,
    )
    if json_file is not None:
        json_file.write_text(json_text(report, indent=1) + "\n", encoding="utf-8")
    out.print(tables.table(report))


@bench.command("compare")
@click.argument("before", type=click.Path(path_type=Path))
@click.argument("after", type=click.Path(path_type=Path))
@click.option("--threshold", default=0.05, show_default=True, help="The share by which a figure may fall.")
@click.pass_context
def bench_compare(ctx: click.Context, before: Path, after: Path, threshold: float) -> None:
    """Compare two reports; exit with 1 where a stage became slower by more than the threshold."""
    from pggan_kit.benchmarking import compare

    changes = compare(before, after, threshold)
    for change in changes:
        mark = "slower: " if change.regressed else "        "
        out.print(escaped(mark + change.text), highlight=False, soft_wrap=True)
    if any(change.regressed for change in changes):
        ctx.exit(FAILED)

"""The command group `bench`, which measures speed."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from pggan_kit.cli.base import (
    FAILED,
    PATH,
    DefaultGroup,
    add_experiment_options,
    main,
    out,
    print_message,
    print_table,
    replace_unprintable,
)
from pggan_kit.errors import UserError
from pggan_kit.system.json_text import json_text


@main.group(cls=DefaultGroup, options_metavar="CONFIG", subcommand_metavar="[OPTIONS]")
def bench() -> None:
    """Measure an experiment's stages (bench CONFIG), or compare two such reports (bench compare A.json B.json)."""


@bench.command("run")
@click.argument("config", type=PATH)
@click.option(
    "--stages", default="", metavar="SIZES", help="Measure these only: sizes or numbers from 0, as 8x8,16x16."
)
@click.option("--phases", default="", metavar="PHASES", help="Measure these only: steady, fading.")
@click.option("--json", "json_file", type=PATH, help="Write the report to a file.")
@click.option(
    "--against",
    multiple=True,
    metavar="FILE.py:FUNCTION",
    help="Measure foreign code as well; ratios are relative to the first one.",
)
@click.option(
    "--variant", "variants", multiple=True, metavar="NAME=BINDING[;BINDING]", help="Measure this variant as well."
)
@click.option("--rounds", default=6, show_default=True, help="Measurements of each contender at each stage.")
@click.option(
    "--seconds", type=float, help="Time for everything: turns become shorter, and what does not fit is left out."
)
@click.option("--cudnn-benchmark", is_flag=True, help="Let cuDNN try its algorithms, for all contenders alike.")
@click.option("--revision", help="Revision of the code, for the report, where there is no git checkout.")
@add_experiment_options
@click.pass_context
def bench_run(
    ctx: click.Context,
    config: Path,
    stages: str,
    phases: str,
    json_file: Path | None,
    against: tuple[str, ...],
    variants: tuple[str, ...],
    rounds: int,
    seconds: float | None,
    cudnn_benchmark: bool,
    revision: str | None,
    bindings: tuple[str, ...],
    plugins: tuple[str, ...],
) -> None:
    """Measure whole training iterations at each stage, steady and mid-fade, on noise; train nothing."""
    from pggan_kit.benchmarking import tables
    from pggan_kit.benchmarking.bench import bench
    from pggan_kit.benchmarking.contenders import parse_variant
    from pggan_kit.runs.targets import require_target_outside_runs
    from pggan_kit.system.files import require_replaceable, write_atomically

    # What would fail after minutes of measuring is checked first.
    named_variants = [parse_variant(text) for text in variants]
    others = dict(named_variants)
    if len(others) < len(named_variants):
        raise UserError("--variant: two have the same name; give each a name of its own")
    if json_file is not None:
        if not json_file.parent.is_dir():
            raise UserError(f"--json {json_file}: there is no folder {json_file.parent}")
        require_target_outside_runs("--json", json_file)
        require_replaceable(json_file)

    # A report is written after each stage: what ends this process early costs no more than one.
    command = shlex.join(["pggan-kit", *sys.argv[1:]])

    def save(report: dict[str, Any]) -> None:
        if json_file is not None:
            write_atomically(json_file, (json_text({"command": command, **report}, indent=1) + "\n").encode())

    report = bench(
        config,
        bindings,
        plugins,
        stages=_split(stages),
        phases=_split(phases),
        others=others,
        against=against,
        rounds=rounds,
        seconds=seconds,
        cudnn_benchmark=cudnn_benchmark,
        revision=revision,
        progress=print_message,
        save=save,
    )

    # A stage that does not fit into memory is a finding, and no failure of the command.
    print_table(tables.build_table(report))
    if any(not failure["out_of_memory"] for failure in report["failures"]):
        ctx.exit(FAILED)


def _split(names: str) -> list[str]:
    """Return the names between commas."""
    return [name.strip() for name in names.split(",") if name.strip()]


@bench.command("compare")
@click.argument("before", type=PATH)
@click.argument("after", type=PATH)
@click.option("--threshold", default=0.05, show_default=True, help="Largest accepted slowdown, as a share.")
@click.option("--different-machines", is_flag=True, help="Compare reports of different machines, and say so.")
@click.pass_context
def bench_compare(ctx: click.Context, before: Path, after: Path, threshold: float, different_machines: bool) -> None:
    """Compare two reports; exit with 1 if a stage became slower by more than the threshold."""
    from pggan_kit.benchmarking import compare
    from pggan_kit.benchmarking.compare import HARDWARE, SOFTWARE, list_differences

    changes = compare(before, after, threshold, different_machines=different_machines)
    for difference in list_differences(before, after, HARDWARE):
        print_message(f"DIFFERENT MACHINES: {difference}: a change may be the machine's")
    for difference in list_differences(before, after, SOFTWARE):
        print_message(f"other software: {difference}")
    for change in changes:
        mark = "slower: " if change.regressed else "        "
        out.print(replace_unprintable(mark + change.text), soft_wrap=True)
    if any(change.regressed for change in changes):
        ctx.exit(FAILED)


@bench.command("export")
@click.argument("report", type=PATH)
@click.option("--to", "tool", required=True, metavar="TOOL", help="github-action-benchmark, or bencher.")
@click.option("--out", "out_file", required=True, type=PATH, help="File to write.")
def bench_export(report: Path, tool: str, out_file: Path) -> None:
    """Write a report in the format of a tool that keeps a history of speed."""
    from pggan_kit.benchmarking.export import export
    from pggan_kit.runs.targets import require_target_outside_runs
    from pggan_kit.system.files import require_replaceable, write_atomically

    content = export(report, tool)
    require_target_outside_runs("--out", out_file)
    require_replaceable(out_file)
    write_atomically(out_file, (json_text(content, indent=1) + "\n").encode())

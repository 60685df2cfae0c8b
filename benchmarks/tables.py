"""Print the tables of a report of `pggan-kit bench --json`: `python benchmarks/tables.py REPORT.json`.

Without a GPU these are the tables of `benchmarks/results/README.md`. With one they are those of `make gpu`: all figures
of each contender, what failed, what there was no time for, and the hours of the released CelebA-HQ schedule.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pggan_kit.api.prepare import prepare
from pggan_kit.benchmarking.report import FADING, STEADY, describe_failure
from pggan_kit.benchmarking.tables import describe_measured_machine
from pggan_kit.schedule import Schedule

HERE = Path(__file__).parent
RELEASED = HERE.parent / "experiments" / "celebahq_released.gin"

AUTHORS = (
    'The authors: "preset-v2-1gpu: Optimized config [...] Expected to take about 2 weeks on 1xV100" (README of '
    "github.com/tkarras/progressive_growing_of_gans): 336 h. Theirs include evaluation, snapshots and reading data; "
    "the hours here do not."
)

MACHINE = (
    "driver",
    "cuda",
    "cudnn",
    "cudnn_benchmark",
    "tf32",
    "triton",
    "python",
    "sm_clock_mhz",
    "sm_clock_max_mhz",
    "memory_clock_mhz",
    "power_limit_watts",
    "nvml",
)
"""Facts of the machine that are shown with a GPU's figures, where they are known."""


def speeds(report: Mapping[str, Any]) -> str:
    """Return a table of images per second, with the ratio to the yardstick: a column for each contender."""
    contenders = list(dict.fromkeys(row["contender"] for row in report["rows"]))
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for row in report["rows"]:
        text = f"{row['images_per_second']:.3g}"
        if "ratio" in row:
            text += f" ({row['ratio']:.2f})"
        cells.setdefault((row["size"], row["phase"]), {})[row["contender"]] = text

    lines = []
    for case, text_of in cells.items():
        lines.append([*case, *(text_of.get(name, "") for name in contenders)])
    return format_markdown(["size", "phase", *contenders], lines)


def costs(report: Mapping[str, Any], contender: str) -> str:
    """Return a table of the costs of an image at each size, after the fade."""
    lines = []
    for row in report["rows"]:
        if row["contender"] != contender or row["phase"] != STEADY:
            continue
        milliseconds = 1000 / row["images_per_second"]
        gflops = row["gflops_per_image"]
        lines.append(
            [
                row["size"],
                f"{milliseconds:.3g}",
                f"{gflops:.3g}",
                f"{milliseconds / gflops:.3g}",
                f"{row['of_ceiling']:.0%}",
                f"{row['shares']['hooks']:.2%}",
            ]
        )
    head = ["size", "ms an image", "GFLOP an image", "ms a GFLOP", "of the ceiling", "outside the update"]
    return format_markdown(head, lines)


FIGURES = (
    ("images/s", "images_per_second", "{:.4g}"),
    ("p10", "p10", "{:.4g}"),
    ("p90", "p90", "{:.4g}"),
    ("s per 1,000 images", "seconds_per_1000_images", "{:.3g}"),
    ("TFLOP/s", "tflops_per_second", "{:.3g}"),
    ("of its convolutions alone", "of_ceiling", "{:.0%}"),
    ("of a large product", "of_matrix_product", "{:.0%}"),
    ("launches", "launches", "{:.0f}"),
    ("kernels", "kernels", "{:.0f}"),
    ("busy", "busy_share", "{:.0%}"),
    ("MiB allocated", "peak_memory_mib", "{:.0f}"),
    ("MiB reserved", "reserved_memory_mib", "{:.0f}"),
    ("W", "watts", "{:.0f}"),
    ("J per 1,000 images", "joules_per_1000_images", "{:.0f}"),
)
"""Columns of the figures of a contender: title, name in a row of the report, format."""


def all_figures(report: Mapping[str, Any], phase: str, yardsticks: Sequence[str]) -> str:
    """Return a table with all figures of each contender in a phase; a cell is empty where a figure is missing.

    Args:
        report: The report.
        phase: The phase.
        yardsticks: Contenders by whose speed the others' is divided, in columns of their own.
    """
    rows = [row for row in report["rows"] if row["phase"] == phase]
    rate_of = {(row["size"], row["contender"]): row["images_per_second"] for row in rows}
    lines = []
    for row in rows:
        line = [f"{row['size']} ({row['batch']})", row["contender"]]
        for name in yardsticks:
            rate = rate_of.get((row["size"], name))
            line.append(f"{row['images_per_second'] / rate:.2f}" if rate else "")
        for _, name, form in FIGURES:
            line.append(form.format(row[name]) if row.get(name) is not None else "")
        lines.append(line)
    ratios = [f"x {name}" for name in yardsticks]
    return format_markdown(["size (batch)", "contender", *ratios, *(title for title, _, _ in FIGURES)], lines)


def load_released_schedule() -> Schedule:
    """Return the stages of the released code's schedule for CelebA-HQ on one GPU, without its data."""
    bindings = ["train.dataset = @datasets.Noise()"]
    return prepare(RELEASED, bindings, [str(HERE / "noise.py")]).resolve_schedule()


def compute_hours(report: Mapping[str, Any], contender: str, schedule: Schedule) -> float | None:
    """Return the hours that a schedule takes at the measured speeds; None where one of them is missing.

    Args:
        report: The report.
        contender: Name of the contender.
        schedule: Stages, of the sizes of the report; a batch may be another than the measured one.
    """
    rates = {}
    for row in report["rows"]:
        if row["contender"] == contender:
            rates[row["size"], row["phase"]] = row["images_per_second"]
    seconds = 0.0
    starts = schedule.planned_starts()
    for stage, start, end in zip(schedule.stages, starts, [*starts[1:], schedule.total], strict=True):
        images_of_stage = max(0, min(end, schedule.total) - start)
        fading = min(stage.fade_images, images_of_stage)
        for phase, images in ((FADING, fading), (STEADY, images_of_stage - fading)):
            if images == 0:
                continue
            if (stage.size, phase) not in rates:
                return None
            seconds += images / rates[stage.size, phase]
    return seconds / 3600


def hours(report: Mapping[str, Any], schedule: Schedule) -> str:
    """Return a table of the hours that a schedule takes, for each contender that was measured everywhere."""
    lines = []
    for contender in dict.fromkeys(row["contender"] for row in report["rows"]):
        taken = compute_hours(report, contender, schedule)
        if taken is not None:
            lines.append([contender, f"{taken:.1f}", f"{336 / taken:.1f}"])
    return format_markdown(["contender", "hours", "times as fast as two weeks"], lines)


def missing_figures(report: Mapping[str, Any]) -> str:
    """Return a line for each contender that failed, and for each that there was no time for."""
    lines = [f"* {describe_failure(row)}" for row in report["failures"]]
    for row in report["left_out"]:
        lines.append(f"* no time for {row['contender']} at {row['size']} ({row['phase']}): {row['what']}")
    return "\n".join(lines) or "Nothing failed, and nothing was left out."


def describe_gpu(report: Mapping[str, Any]) -> str:
    """Return lines on the machine, the code and the time of a report."""
    machine = report["machine"]
    facts = [f"{name} {machine[name]}" for name in MACHINE if machine.get(name) is not None]
    lines = [describe_measured_machine(report), ", ".join(facts)]
    lines.append(f"revision {report['revision']}, {report['date']}, `{report.get('command', '')}`")
    return "\n\n".join(lines)


def gpu_tables(report: Mapping[str, Any]) -> str:
    """Return all tables of `make gpu`."""
    yardsticks = [name for name in dict.fromkeys(row["contender"] for row in report["rows"]) if "reference" in name]
    sections = [describe_gpu(report)]
    for phase, title in ((STEADY, "After the fade"), (FADING, "In the middle of the fade")):
        sections += [f"## {title}", all_figures(report, phase, yardsticks)]
    sections += ["## CelebA-HQ, the released schedule (12 million images), at the measured batches"]
    sections += [hours(report, load_released_schedule()), AUTHORS, "## What is missing", missing_figures(report)]
    return "\n\n".join(sections)


def format_markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    rule = ["---"] * len(head)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *lines))


def main() -> None:
    """Print the tables of the report that the command line names."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    report = json.loads(Path(sys.argv[1]).read_text())
    if report["machine"].get("cudnn"):
        print(gpu_tables(report))
        return
    first_contender = report["rows"][0]["contender"]
    print(describe_measured_machine(report), speeds(report), costs(report, first_contender), sep="\n\n")


if __name__ == "__main__":
    main()

"""Measure every stage from 4 to 1024 pixels with compiled steps, beside captured ones; `make gpu-compiled` runs it.

Compiling a stage takes a minute or two of one core. So each stage and phase has a process of its own: they compile at
once, and are measured one after the other, with nothing beside them. The report is written after each of them, under
benchmarks/results/ and the card's name, and the tables beside it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shlex
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.context import SpawnContext
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import torch
from gpu import HERE, REFERENCES, name_card
from tables import gpu_tables

from pggan_kit.benchmarking.bench import bench, list_phases, measure_matrix_products, select_stages
from pggan_kit.benchmarking.contenders import load_variants
from pggan_kit.benchmarking.report import PHASES, STEADY
from pggan_kit.errors import UserError
from pggan_kit.system.devices import find_device, free_cached_memory, read_memory_mib
from pggan_kit.system.json_text import json_text

CONFIG = HERE / "paper.gin"
PLUGINS = (str(HERE / "noise.py"),)
VARIANTS = {"compiled": ["train.compile = 'always'"]}

MIB_OF_A_PLACE = 12_000
"""Memory that a process takes at most while it compiles, at the paper's widths and batches."""

LONG_SECONDS = 3_600.0
"""A limit of time that no process reaches: under one, only what tables show is measured."""


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=CONFIG, help="default: benchmarks/paper.gin")
    parser.add_argument("--stages", default="", help="measure these only, as 8x8,16x16")
    parser.add_argument("--workers", type=int, help="processes that compile at once; default: as many as fit")
    parser.add_argument("--json", type=Path, help="the report; default: benchmarks/results/CARD-compiled.json")
    parser.add_argument("--revision", help="revision of the code, where there is no git checkout")
    options = parser.parse_args(arguments)
    if options.json is None:
        if not torch.cuda.is_available():
            parser.error("there is no CUDA device; to try this on a CPU, name the report with --json")
        options.json = HERE / "results" / f"{name_card(torch.cuda.get_device_name())}-compiled.json"
    if not options.json.parent.is_dir():
        parser.error(f"--json {options.json}: there is no folder {options.json.parent}")
    if options.workers is not None and options.workers < 1:
        parser.error(f"--workers must be at least 1, and is {options.workers}")
    return options


def count_workers(device: torch.device) -> int:
    """Return the number of processes that a machine has cores and memory for."""
    return max(1, min(os.cpu_count() or 1, int(read_memory_mib(device) / MIB_OF_A_PLACE)))


@dataclass
class Place:
    """A stage in one of its phases, and the process that measures it.

    Attributes:
        name: Its name in the log.
        process: The process.
        built: Set by the process once it has compiled.
        turn: Set for the process once nothing else uses the machine.
        report: The report of `bench` that it writes.
    """

    name: str
    process: BaseProcess
    built: Event
    turn: Event
    report: Path

    def wait_until_built(self) -> None:
        """Wait until the process has compiled, or has ended early."""
        while self.process.is_alive() and not self.built.wait(0.2):
            pass

    def measure(self) -> bool:
        """Let the process measure, and return whether it succeeded."""
        self.turn.set()
        self.process.join()
        return self.process.exitcode == 0


def measure_place(options: dict[str, Any], file: Path, built: Event, turn: Event) -> None:
    """Run `bench` for a stage in one phase, whose rounds begin once it is its turn."""

    def wait_for_turn() -> None:
        if torch.cuda.is_available():
            free_cached_memory(torch.device("cuda"))
        built.set()
        turn.wait()

    report = bench(plugins=PLUGINS, others=VARIANTS, wait_for_turn=wait_for_turn, progress=print_line, **options)
    file.write_text(json_text(report), "utf-8")


def print_line(text: str) -> None:
    """Print a line at once, whole, among those of other processes."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def start(context: SpawnContext, options: dict[str, Any], folder: Path) -> Place:
    """Start the process of a place."""
    name = "-".join((*options["stages"], *options["phases"]))
    built, turn = context.Event(), context.Event()
    file = folder / f"{name}.json"
    process = context.Process(target=measure_place, args=(options, file, built, turn), daemon=True)
    process.start()
    return Place(name, process, built, turn, file)


def measure_all(choices: Sequence[dict[str, Any]], workers: int, save: Callable[[dict[str, Any]], None]) -> bool:
    """Measure all places, as many as there are workers at once while they compile; return whether all succeeded.

    Args:
        choices: The options of `bench` for each place.
        workers: Number of processes.
        save: A function that takes the report of a place.
    """
    context = multiprocessing.get_context("spawn")
    succeeded = True
    with tempfile.TemporaryDirectory() as folder:
        for begin in range(0, len(choices), workers):
            places = [start(context, choice, Path(folder)) for choice in choices[begin : begin + workers]]
            for place in places:
                place.wait_until_built()
            for place in places:
                if place.measure():
                    save(json.loads(place.report.read_text("utf-8")))
                else:
                    print_line(f"{place.name} FAILED; the others go on")
                    succeeded = False
    return succeeded


def merge(report: dict[str, Any], other: dict[str, Any]) -> None:
    """Add what another report has measured to a report of the same machine."""
    for key in ("rows", "failures", "left_out"):
        report[key] += other[key]
    report["rows"].sort(key=lambda row: (row["stage"], PHASES.index(row["phase"])))


def main(arguments: Sequence[str]) -> int:
    """Measure everything, and return the exit code: 0 where no process and no contender failed."""
    options = parse_arguments(arguments)
    (variant,) = load_variants(options.config, [], PLUGINS, {})
    device = find_device(variant.prepared.built.experiment.device)
    products = measure_matrix_products(device, print_line)

    # All stages after their fades come first, the small ones before the large.
    choices = []
    for phase in PHASES:
        for stage in select_stages(variant.schedule, [name for name in options.stages.split(",") if name]):
            if phase not in list_phases(variant, stage):
                continue
            choice = {"config": options.config, "stages": [stage.size], "phases": [phase], "seconds": LONG_SECONDS}
            choice |= {"matrix_product": products, "revision": options.revision}
            if phase == STEADY:
                choice["against"] = [f"{HERE / 'reference.py'}:{function}" for function in REFERENCES]
            choices.append(choice)

    report: dict[str, Any] = {}

    def save(other: dict[str, Any]) -> None:
        if report:
            merge(report, other)
        else:
            report.update(other, config=os.path.relpath(options.config, HERE.parent), seconds=None)
            report["command"] = shlex.join(["python", "benchmarks/gpu_compiled.py", *arguments])
        options.json.write_text(json_text(report, indent=1) + "\n", "utf-8")
        options.json.with_suffix(".md").write_text(gpu_tables(report) + "\n", "utf-8")

    succeeded = measure_all(choices, options.workers or count_workers(device), save)
    if not report:
        print_line("nothing was measured: there is no report")
        return 1
    print_line(gpu_tables(report))
    return 0 if succeeded and not report["failures"] else 1


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        sys.exit(f"error: {error}")

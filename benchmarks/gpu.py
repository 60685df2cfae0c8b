"""Check and measure a GPU: the tests that need one, then every stage from 4 to 1024 pixels; `make gpu` runs it.

What follows the options is given to `pggan-kit bench`, for example further variants. The report is written after each
stage, under benchmarks/results/ and the card's name, and the tables beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from tables import gpu_tables

HERE = Path(__file__).parent
ROOT = HERE.parent
REFERENCES = ("make", "make_bfloat16", "make_tf32")
VARIANTS = ("eager=train.capture = 'never'",)


def parse_arguments(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the options, and what is left for `bench`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=240, help="time for measuring (default: 240)")
    parser.add_argument("--tests-seconds", type=float, default=240, help="time for the tests; 0 leaves them out")
    parser.add_argument("--json", type=Path, help="the report; default: benchmarks/results/CARD.json")
    options, rest = parser.parse_known_args(arguments)
    if options.json is None:
        if not torch.cuda.is_available():
            parser.error("there is no CUDA device; to try this on a CPU, name the report with --json")
        options.json = HERE / "results" / f"{name_card(torch.cuda.get_device_name())}.json"
    return options, rest


def name_card(device: str) -> str:
    """Return the name of a card for a file: `nvidia-h200`."""
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")


def list_test_files() -> list[str]:
    """Return the files with tests that need a GPU: to collect all others takes a minute."""
    return [str(file) for file in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in file.read_text("utf-8")]


def run_tests(seconds: float) -> bool:
    """Run the tests that need a GPU, and return whether they pass within a time."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", *list_test_files()]
    try:
        return subprocess.run(command, cwd=ROOT, timeout=seconds).returncode == 0
    except subprocess.TimeoutExpired:
        print(f"the tests took more than {seconds:.0f} s and were stopped", flush=True)
        return False


def measure(seconds: float, report: Path, rest: Sequence[str]) -> bool:
    """Run `pggan-kit bench`, and return whether it succeeded."""
    command = [sys.executable, "-m", "pggan_kit", "bench", "benchmarks/paper.gin"]
    command += ["--plugin", "benchmarks/noise.py", "--seconds", str(seconds)]
    # As seen from the root: the report holds the command, and is published.
    command += ["--json", os.path.relpath(report, ROOT)]
    for function in REFERENCES:
        command += ["--against", f"benchmarks/reference.py:{function}"]
    for variant in VARIANTS:
        command += ["--variant", variant]
    return subprocess.run([*command, *rest], cwd=ROOT).returncode == 0


def read_change(file: Path) -> int | None:
    """Return when a file was last changed, in nanoseconds; None where there is none."""
    return file.stat().st_mtime_ns if file.is_file() else None


def main(arguments: Sequence[str]) -> int:
    """Run everything, and return the exit code: 0 where the tests passed and no contender failed."""
    options, rest = parse_arguments(arguments)
    passed = True
    if options.tests_seconds > 0:
        passed = run_tests(options.tests_seconds)
        print("the tests passed" if passed else "the tests FAILED; measuring goes on", flush=True)
    before = read_change(options.json)
    succeeded = measure(options.seconds, options.json, rest)
    after = read_change(options.json)
    if after is None or after == before:
        print("nothing was measured: there is no new report", flush=True)
    else:
        text = gpu_tables(json.loads(options.json.read_text("utf-8")))
        options.json.with_suffix(".md").write_text(text + "\n", "utf-8")
        print(text)
    return 0 if passed and succeeded else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

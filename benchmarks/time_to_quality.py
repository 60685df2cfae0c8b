"""Wall time and images until digits are good: the demo's configuration and the tutorial's recipe, side by side.

    OMP_NUM_THREADS=2 python benchmarks/time_to_quality.py [--sure 0.95] [--folder MNIST]

The 28x28 images of a run are good, once no fade is left, when all ten digits occur, each at least a tenth as often as
among the reals, and a classifier (`features.DigitClasses`, which no training here uses) is on average at least `--sure`
times as confident of them as of real ones. This is measured every 4,000 images. Update seconds leave out grids and
measurements, which would favour a run that makes fewer; the other seconds include everything. An experiment that ends
before its images are good is marked, with its last measurements.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pggan_kit import Interrupted, Run, hookimpl, train

EXPERIMENTS = Path(__file__).parent.parent / "experiments"
MEASUREMENTS = [
    "train.tick = 4_000",
    "train.metrics = [@metrics.ClassCoverage(), @metrics.FrechetDistance()]",
    "metrics.ClassCoverage.features = @features.DigitClasses()",
    "metrics.FrechetDistance.features = @features.Digits()",
    "evaluation.count = 2_000",
]
HEAD = "| experiment | images | steps | update seconds | seconds | sure | FID |"
RULE = "|---|---|---|---|---|---|---|"


class QualityWatch:
    """A plugin that stops a run once its images are good.

    Args:
        sure: The confidence that counts as good, over that on real images, in (0, 1).

    Attributes:
        last: The last measurements of images at their final size, after the fade.
        good: Whether they are good.
    """

    def __init__(self, sure: float) -> None:
        self.sure = sure
        self.last: dict[str, float] = {}
        self.good = False
        self.update_seconds = 0.0
        self.started = time.perf_counter()

    @hookimpl
    def after_tick(self, run: Run, state: Any, stats: Mapping[str, float]) -> None:
        """Read the tick's metrics.

        Raises:
            Interrupted: The images are good.
        """
        self.update_seconds += stats["Timing/update_seconds"]
        is_final = stats["Progress/size"] == 28 and stats["Progress/alpha"] == 1.0
        if not is_final or "Metrics/Confidence" not in stats:
            return

        sure = stats["Metrics/Confidence"] / stats["Metrics/Confidence_floor"]
        self.last = {
            "images": state.images,
            "steps": state.steps,
            "sure": sure,
            "FID": stats["Metrics/FID"],
            "update_seconds": self.update_seconds,
            "seconds": time.perf_counter() - self.started,
        }
        self.good = sure >= self.sure and stats["Metrics/ClassesCovered"] == 1
        if self.good:
            raise Interrupted(None, "the images are good")


def measure_time_to_quality(config: Path, sure: float, bindings: list[str]) -> QualityWatch:
    """Train until the images are good, or to the end."""
    watch = QualityWatch(sure)
    with tempfile.TemporaryDirectory() as folder:
        try:
            train(config, [*MEASUREMENTS, *bindings], run_dir=Path(folder) / "run", plugins=[watch])
        except Interrupted:
            # Ctrl-C ends the benchmark, too.
            if not watch.good:
                raise
    return watch


def format_row(name: str, watch: QualityWatch) -> str:
    """Return the row of an experiment in the table."""
    last = watch.last
    cells = [
        name if watch.good else f"{name} (not good enough)",
        f"{last['images']:,}",
        f"{last['steps']:,}",
        f"{last['update_seconds']:.0f}",
        f"{last['seconds']:.0f}",
        f"{last['sure']:.3f}",
        f"{last['FID']:.3g}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print a row for each experiment."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sure", type=float, default=0.95, help="in (0, 1)")
    parser.add_argument("--folder", help="with MNIST's original IDX files; without it the bundled 10,000 digits")
    parser.add_argument("-b", dest="bindings", action="append", default=[], help="a binding for both experiments")
    args = parser.parse_args()
    if not 0 < args.sure < 1:
        parser.error(f"--sure must lie between 0 and 1, and is {args.sure}")
    bindings = list(args.bindings)
    if args.folder:
        bindings.append(f"datasets.MNIST.folder = {args.folder!r}")

    # Print the table at the end: training prints lines of its own.
    lines = [HEAD, RULE]
    for name in ("mnist.gin", "tutorial_mnist.gin"):
        lines.append(format_row(name, measure_time_to_quality(EXPERIMENTS / name, args.sure, bindings)))
    print("\n".join(lines))


if __name__ == "__main__":
    main()

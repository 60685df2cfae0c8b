"""Wall time and images until digits are good: the demo's configuration and the tutorial's recipe, side by side.

    OMP_NUM_THREADS=2 python benchmarks/time_to_quality.py [--sure 0.95] [--folder MNIST]

Good is said of 28x28 images once no fade is left: all ten digits are there, each at least a tenth as often as among the
reals, and a classifier (`features.DigitClasses`, which no training here sees) is on average at least `--sure` times as
sure of them as it is of real ones. It is measured every 4,000 images. Update seconds leave out grids and measurements,
which would favour whoever makes fewer; the seconds beside them have everything in. An experiment that ends before it is
good enough is marked, with what it came to.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pggan_kit import Run, hookimpl, train
from pggan_kit.errors import Interrupted

EXPERIMENTS = Path(__file__).parent.parent / "experiments"
MEASURED = [
    "train.tick = 4_000",
    "train.metrics = [@metrics.ClassCoverage(), @metrics.FrechetDistance()]",
    "metrics.ClassCoverage.features = @features.DigitClasses()",
    "metrics.FrechetDistance.features = @features.Digits()",
    "evaluation.count = 2_000",
]


class Watch:
    """Ends a run once its images are good enough.

    Attributes:
        found: what was measured last, of whole images at their final size.
        good: whether that is good enough.
    """

    def __init__(self, sure: float) -> None:
        self.sure = sure
        self.found: dict[str, float] = {}
        self.good = False
        self.update_seconds = 0.0
        self.began = time.perf_counter()

    @hookimpl
    def after_tick(self, run: Run, state: Any, stats: Mapping[str, float]) -> None:
        """Look at the tick's metrics."""
        self.update_seconds += stats["Timing/update_seconds"]
        whole = stats["Progress/size"] == 28 and stats["Progress/alpha"] == 1.0 and "Metrics/Confidence" in stats
        if not whole:
            return
        sure = stats["Metrics/Confidence"] / stats["Metrics/Confidence_floor"]
        self.found = {"images": state.images, "steps": state.steps, "sure": sure, "FID": stats["Metrics/FID"]}
        self.found |= {"update_seconds": self.update_seconds, "seconds": time.perf_counter() - self.began}
        self.good = sure >= self.sure and stats["Metrics/ClassesCovered"] == 1
        if self.good:
            raise Interrupted(None, "the images are good enough")


def time_to_quality(config: Path, sure: float, bindings: list[str]) -> Watch:
    """Train until the images are good enough, or to the end."""
    watch = Watch(sure)
    with tempfile.TemporaryDirectory() as folder:
        try:
            train(config, [*MEASURED, *bindings], run_dir=Path(folder) / "run", plugins=[watch])
        except Interrupted:
            if not watch.good:
                raise
    return watch


def main() -> None:
    """Print a line for each experiment."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sure", type=float, default=0.95, help="in (0, 1)")
    parser.add_argument("--folder", help="with MNIST's original IDX files; else the bundled 10,000 digits")
    parser.add_argument("-b", dest="bindings", action="append", default=[], help="a binding for both")
    chosen = parser.parse_args()
    if not 0 < chosen.sure < 1:
        parser.error(f"--sure must lie between 0 and 1, and is {chosen.sure}")
    bindings = [*chosen.bindings, *([f"datasets.MNIST.folder = {chosen.folder!r}"] if chosen.folder else [])]
    lines = ["| experiment | images | steps | update seconds | seconds | sure | FID |", "|---|---|---|---|---|---|---|"]
    for name in ("mnist.gin", "tutorial_mnist.gin"):
        watch = time_to_quality(EXPERIMENTS / name, chosen.sure, bindings)
        found = watch.found
        figures = [f"{found['images']:,}", f"{found['steps']:,}", f"{found['update_seconds']:.0f}"]
        figures += [f"{found['seconds']:.0f}", f"{found['sure']:.3f}", f"{found['FID']:.3g}"]
        lines.append(f"| {name}{'' if watch.good else ' (not good enough)'} | {' | '.join(figures)} |")
    print("\n".join(lines))


if __name__ == "__main__":
    main()

"""Print the table of docs/gpu.md: what a step takes on an H100 by a model, from operators counted on fake tensors.

`python benchmarks/estimates.py` needs no GPU. With a REPORT.json of `make gpu`, the images per second that were
measured are put beside the estimates.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tables import format_markdown

from pggan_kit.api.prepare import Prepared, prepare
from pggan_kit.benchmarking.flops import Call, Counts, Like, count_mean_calls, sum_flops
from pggan_kit.benchmarking.report import STEADY
from pggan_kit.benchmarking.rig import Rig
from pggan_kit.schedule import Stage

HERE = Path(__file__).parent

FLOPS = {torch.bfloat16: 395e12, torch.float32: 40e12}
"""Floating-point operations per second of large convolutions by type, without TensorFloat-32."""

BYTES = 3.0e12
"""Bytes per second of memory."""

LAUNCH_SECONDS = (5e-6, 10e-6)
"""Seconds of the host for each operator that it launches: at best, and at worst."""

KERNEL_SECONDS = (0.0, 2e-6)
"""Seconds that a kernel takes at least within a captured step: at best, and at worst."""


@dataclass(frozen=True)
class Estimate:
    """What a step takes by the model.

    Attributes:
        batch: Images of a step.
        operators: Operators that the host launches.
        flops: Floating-point operations.
        total_bytes: Bytes that are read and written.
        convolutions: Seconds of convolutions and matrix products.
        elementwise: Seconds of everything else.
    """

    batch: int
    operators: float
    flops: float
    total_bytes: float
    convolutions: float
    elementwise: float

    def estimate_eager(self) -> tuple[float, float]:
        """Return the images per second of an eager step, at worst and at best.

        The host launches while the GPU works.
        """
        gpu = self.convolutions + self.elementwise
        best, worst = (self.batch / max(gpu, self.operators * seconds) for seconds in LAUNCH_SECONDS)
        return worst, best

    def estimate_captured(self) -> tuple[float, float]:
        """Return the images per second of a captured step, at worst and at best: the host launches nothing."""
        gpu = self.convolutions + self.elementwise
        best, worst = (self.batch / max(gpu, self.operators * seconds) for seconds in KERNEL_SECONDS)
        return worst, best

    def estimate_limit(self) -> float:
        """Return the images per second if there were nothing but convolutions and matrix products."""
        return self.batch / self.convolutions


def count_call_bytes(call: Call) -> int:
    """Return the bytes of a convolution's or product's arguments, and of a result as large as the largest of them."""
    sizes = []
    for argument in call.arguments:
        if isinstance(argument, Like):
            elements = 1
            for size, stride in zip(argument.shape, argument.strides, strict=True):
                elements *= size if stride else 1
            sizes.append(elements * argument.dtype.itemsize)
    return sum(sizes) + max(sizes)


def estimate_step(counts: Counts, batch: int) -> Estimate:
    """Return what a step takes by the model.

    Args:
        counts: What it does.
        batch: Its images.
    """
    convolutions = 0.0
    total_bytes = counts.other_bytes
    for call, times in counts.calls.items():
        moved = count_call_bytes(call)
        convolutions += times * max(call.flops / FLOPS[call.dtype], moved / BYTES)
        total_bytes += times * moved
    flops = sum_flops(counts.calls)
    return Estimate(batch, counts.operators, flops, total_bytes, convolutions, counts.other_bytes / BYTES)


def load_paper(precision: str, bindings: Sequence[str] = ()) -> Prepared:
    """Return the experiment of `make gpu` on a CPU, whose operators are taken for a GPU's."""
    own = [f"train.precision = '{precision}'", "train.device = 'cpu'"]
    return prepare(HERE / "paper.gin", [*own, *bindings], [str(HERE / "noise.py")])


def count_stage(prepared: Prepared, stage: Stage, fading: bool = False) -> Counts:
    """Return what an eager step of a stage does."""
    schedule = prepared.schedule()
    return count_mean_calls(lambda: Rig(prepared, schedule, stage.index, fading, compiles=False))


def format_range(low: float, high: float) -> str:
    """Return a range of images per second with two digits; one number where both are the same."""
    texts = [f"{float(f'{value:.2g}'):,.0f}" for value in (low, high)]
    return texts[0] if texts[0] == texts[1] else f"{texts[0]} to {texts[1]}"


HEAD = (
    "px (batch)",
    "launches, float32",
    "launches, bfloat16",
    "more in a fade",
    "TFLOP a step",
    "GB a step",
    "host ms",
    "GPU ms (convolutions)",
    "float32",
    "bfloat16",
    "captured",
    "limit",
)


def make_line(full: Estimate, low: Estimate, fading: Estimate, stage: Stage) -> list[str]:
    """Return the cells of a stage; see `HEAD`.

    Args:
        full: The estimate in float32.
        low: The estimate in bfloat16.
        fading: The same in the middle of the fade, or after it where there is none.
        stage: The stage.
    """
    host = [1000 * low.operators * seconds for seconds in LAUNCH_SECONDS]
    gpu = 1000 * (low.convolutions + low.elementwise)
    return [
        f"{stage.height} ({stage.batch_size})",
        f"{full.operators:.0f}",
        f"{low.operators:.0f}",
        f"{fading.operators - low.operators:.0f}",
        f"{low.flops / 1e12:.3g}",
        f"{low.total_bytes / 1e9:.2g}",
        f"{host[0]:.2g} to {host[1]:.2g}",
        f"{gpu:.2g} ({1000 * low.convolutions:.2g})",
        format_range(*full.estimate_eager()),
        format_range(*low.estimate_eager()),
        format_range(*low.estimate_captured()),
        f"{float(f'{low.estimate_limit():.2g}'):,.0f}",
    ]


def measured_rates(report: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return the measured images per second after the fade, as text by contender and size."""
    rates: dict[str, dict[str, str]] = {}
    for row in report["rows"]:
        if row["phase"] == STEADY:
            rates.setdefault(row["contender"], {})[row["size"]] = f"{row['images_per_second']:,.4g}"
    return rates


def make_table(report: Mapping[str, Any] | None = None, sizes: Sequence[int] = ()) -> str:
    """Return the table.

    Args:
        report: A report with measured figures, which become further columns; None for none.
        sizes: The sizes of its lines; none for all.
    """
    precise = load_paper("float32")
    fast = load_paper("bfloat16")
    rates = measured_rates(report) if report else {}
    lines = []
    for stage in fast.schedule().stages:
        if sizes and stage.height not in sizes:
            continue
        full = estimate_step(count_stage(precise, stage), stage.batch_size)
        low = estimate_step(count_stage(fast, stage), stage.batch_size)
        fading = low
        if stage.index > 0:
            fading = estimate_step(count_stage(fast, stage, fading=True), stage.batch_size)
        line = make_line(full, low, fading, stage)
        lines.append([*line, *(measured.get(stage.size, "") for measured in rates.values())])
    return format_markdown([*HEAD, *(f"{name}, measured" for name in rates)], lines)


def main() -> None:
    """Print the table, beside a report where the command line names one."""
    if len(sys.argv) > 2:
        sys.exit(__doc__)
    report = json.loads(Path(sys.argv[1]).read_text()) if len(sys.argv) == 2 else None
    print(make_table(report))


if __name__ == "__main__":
    main()

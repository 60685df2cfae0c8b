"""Draw a picture of each experiment file, and write what it costs into docs/gallery.md: `make gallery`.

`python scripts/draw_gallery.py NAME ...` does so for some: `mnist.gin table1/a.gin`. docs/images/gallery/ then has an
SVG for each file, drawn from its schedule, its switch and its learning rates. Each holds the numbers that it was drawn
from, by which the tests notice that a file has changed. In the table of the page the script writes the columns after
the first, which names a file and says what it shows.
"""

from __future__ import annotations

import json
import math
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from helpers.experiment_files import FILES, list_plugins, make_data, make_pictures, name_file  # noqa: E402

from pggan_kit.api.prepare import Prepared, prepare  # noqa: E402
from pggan_kit.benchmarking.flops import count_forward_calls, sum_flops  # noqa: E402
from pggan_kit.experiment import Experiment  # noqa: E402
from pggan_kit.growth.fade import Fade  # noqa: E402
from pggan_kit.growth.moving_settings import find_settings  # noqa: E402
from pggan_kit.schedule import Position, Schedule  # noqa: E402

PAGE = ROOT / "docs/gallery.md"
PICTURES = ROOT / "docs/images/gallery"

PARTS = ("architecture", "discriminator_architecture", "loss", "switch", "growth", "augmentation")
"""Parts whose names stand above the picture, where an experiment has them."""

PLACES = 8
"""Number of places of a phase at which alpha and the learning rates are looked up."""

DIGITS = 4
"""Significant digits of what a picture is drawn from."""

WIDTH, HEIGHT = 264, 118
LEFT, RIGHT = 62, 258
FLOOR, CEILING = 78, 30
"""Heights of the smallest images' ground and of the largest images' top."""
BATCH_LINE = 90
RATE_LOW, RATE_HIGH = 112, 97

STYLE = (
    "text{font:9px sans-serif;fill:#333}.card{fill:#fff}.size{fill:#4a7ab5}.fade{fill:#9dbbe0}"
    ".apart{stroke:#333;stroke-dasharray:3 2;fill:none}.rate{stroke:#c4540a;stroke-width:1.4;fill:none}"
    "@media(prefers-color-scheme:dark){text{fill:#ddd}.card{fill:#16181c}.size{fill:#5b8fd0}.fade{fill:#37577f}"
    ".apart{stroke:#ddd}.rate{stroke:#ff9a4d}}"
)

Trace = list[list[float]]
"""Pairs of a clock and a value."""


def main(names: Sequence[str]) -> None:
    """Draw the pictures of some files, or of all, and write what they cost."""
    known = {name_file(path): path for path in FILES}
    if unknown := sorted(set(names) - set(known)):
        sys.exit(f"error: experiments/ has no {', '.join(unknown)}: name a file as mnist.gin or table1/a.gin")
    PICTURES.mkdir(parents=True, exist_ok=True)
    text = PAGE.read_text(encoding="utf-8")
    for path in [known[name] for name in names] or FILES:
        with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
            bindings = make_data(path, Path(folder), make_pictures(Path(folder)), patch)
            prepared = prepare(path, [*bindings, "train.device = 'cpu'"], list_plugins(path))
            schedule = prepared.schedule()
            drawing = draw(describe(prepared, schedule))
            cells = list_cells(name_file(path), schedule, count_operations(prepared, schedule))
        locate_picture(name_file(path)).write_text(drawing, encoding="utf-8")
        row = find_row(text, name_file(path))
        text = text.replace(row, join_cells([split_cells(row)[0], *cells]))
        PAGE.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT))


def locate_picture(name: str) -> Path:
    """Return the picture of an experiment's file: `docs/images/gallery/table1-a.svg`."""
    return PICTURES / f"{name.removesuffix('.gin').replace('/', '-')}.svg"


def find_row(text: str, name: str) -> str:
    """Return the row of the page's table that a file has, or end with what to do."""
    rows = re.findall(rf"^\| `{re.escape(name)}`<br>.*\n", text, re.MULTILINE)
    if len(rows) != 1:
        sys.exit(
            f"error: docs/gallery.md has {len(rows)} rows of `{name}`<br>: write one, with what it shows after that"
        )
    return rows[0]


def split_cells(row: str) -> list[str]:
    """Return the cells of a row of a table."""
    return [cell.strip() for cell in row.strip().strip("|").split("|")]


def join_cells(cells: Sequence[str]) -> str:
    """Return a row of a table."""
    return f"| {' | '.join(cells)} |\n"


def list_cells(name: str, schedule: Schedule, operations: float) -> list[str]:
    """Return the cells of a row that say what a file costs, and show its picture."""
    sizes = [stage.size for stage in schedule.stages]
    picture = locate_picture(name).relative_to(PAGE.parent).as_posix()
    cost = [
        f"{len(sizes)} stages, {sizes[0]} to {sizes[-1]}",
        f"{schedule.total:,} images",
        f"{format_operations(operations)} TFLOP",
    ]
    return [f"![{name} over its images]({picture})", "<br>".join(cost)]


def format_operations(operations: float) -> str:
    """Return a number of floating-point operations with two digits, in units of 10^12: `3.4`, `1,200`."""
    tera = operations / 1e12
    decimals = max(0, 1 - math.floor(math.log10(tera)))
    return f"{round(tera, 1 - math.floor(math.log10(tera))):,.{decimals}f}"


def count_operations(prepared: Prepared, schedule: Schedule) -> float:
    """Return the floating-point operations of each image's way forward through all networks, over the whole run."""
    state = prepared.state(schedule)
    starts = schedule.planned_starts()
    operations = 0.0
    for stage in schedule.stages:
        if stage.index > 0:
            state.grow(dict.fromkeys(state.networks, False))
        images = schedule.end(starts[: stage.index + 1]) - min(starts[stage.index], schedule.total)
        operations += images * sum_flops(count_forward_calls(state, stage))
    return operations


def describe(prepared: Prepared, schedule: Schedule) -> dict[str, Any]:
    """Return what the picture of an experiment is drawn from, as JSON holds it.

    Returns:
        `parts`, the names of parts; `total`, the images of the run; `stages`, with their `begin`, `height`, `label` and
        `batch`; `alpha`, a trace of the generator's; `discriminator`, a trace of the height that D has grown to, empty
        where that is always G's; and `rates`, a trace of each optimizer's learning rate.
    """
    components = prepared.built.components
    experiment = prepared.built.experiment
    starts = schedule.planned_starts()
    stages = []
    for stage, begin in zip(schedule.stages, starts, strict=True):
        label = str(stage.height) if stage.height == stage.width else stage.size
        stages.append({"begin": begin, "height": stage.height, "label": label, "batch": stage.batch_size})

    # Alpha and the rates, everywhere on the planned clock.
    fade = Fade(prepared.hooks())
    alpha: Trace = []
    heights: Trace = []
    rates: dict[str, Trace] = {}
    for position in list_positions(schedule):
        value = fade.compute_alpha(position.stage, position.stage_start, position.images, "generator")
        alpha.append([position.images, shorten(value)])
        heights.append([position.images, position.stage.of("discriminator").height])
        for name, rate in find_rates(experiment, position).items():
            rates.setdefault(name, []).append([position.images, shorten(rate)])
    is_apart = any(stage.of("discriminator") is not stage for stage in schedule.stages)
    return {
        "parts": [
            components[f"train.{part}"][0].selector.partition(".")[2] for part in PARTS if f"train.{part}" in components
        ],
        "total": schedule.total,
        "stages": stages,
        "alpha": drop_straight(alpha),
        "discriminator": drop_straight(heights) if is_apart else [],
        "rates": {name: drop_straight(trace) for name, trace in rates.items()},
    }


def list_positions(schedule: Schedule) -> list[Position]:
    """Return places of each phase on the planned clock, its first and its last image among them."""
    starts = schedule.planned_starts()
    positions = []
    for stage, start in zip(schedule.stages, starts, strict=True):
        own_starts = starts[: stage.index + 1]
        end = schedule.end(own_starts)
        middle = min(end, start + stage.fade_images)
        for low, high in ((start, middle), (middle, end)):
            places = {low + (high - low) * place // PLACES for place in range(PLACES)}
            if high > low:
                positions += [schedule.at(images, own_starts) for images in sorted({*places, high - 1})]
    return positions


def find_rates(experiment: Experiment, position: Position) -> dict[str, float]:
    """Return the learning rate that each optimizer has at a place on the clock: what is optimized does not matter."""
    net = torch.nn.Linear(1, 1)
    rates = {}
    for name, optimizer in experiment.update.optimizers(experiment, position.stage, net, net).items():
        settings = find_settings(name, optimizer, position)
        rates[name] = settings.get("lr", optimizer.param_groups[0]["lr"])
    return rates


def shorten(value: float) -> float:
    """Return a number with few digits: the last ones are those of a machine's library."""
    return float(f"{value:.{DIGITS}g}")


def drop_straight(trace: Trace) -> Trace:
    """Return a trace without the points that lie between others of the same value."""
    last = len(trace) - 1
    return [
        point
        for place, point in enumerate(trace)
        if place in (0, last) or not trace[place - 1][1] == point[1] == trace[place + 1][1]
    ]


@dataclass(frozen=True)
class Axes:
    """Where numbers lie in a picture.

    Args:
        total: Images of the run.
        heights: Heights of the stages' images.
        highest: The largest learning rate.
    """

    total: int
    heights: Sequence[int]
    highest: float

    def x(self, images: float) -> float:
        """Return the place of a clock."""
        return LEFT + (RIGHT - LEFT) * images / self.total

    def y(self, height: float) -> float:
        """Return the place of a height of images, in equal steps for equal factors; the smallest has a step, too."""
        steps = math.log2(height / self.heights[0]) + 1
        return FLOOR - (FLOOR - CEILING) * steps / (math.log2(self.heights[-1] / self.heights[0]) + 1)

    def y_of_rate(self, rate: float) -> float:
        """Return the place of a learning rate."""
        return RATE_LOW - (RATE_LOW - RATE_HIGH) * rate / self.highest


def draw(record: dict[str, Any]) -> str:
    """Return the picture of what `describe` returned, with that in it."""
    rates = record["rates"]
    highest = max(value for trace in rates.values() for _, value in trace)
    axes = Axes(record["total"], [stage["height"] for stage in record["stages"]], highest)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}">',
        f"<metadata>{json.dumps(record, separators=(',', ':'), allow_nan=False)}</metadata>",
        f"<style>{STYLE}</style>",
        f'<rect class="card" width="{WIDTH}" height="{HEIGHT}" rx="4"/>',
        write_text(6, 12, ", ".join(record["parts"])),
        write_text(6, 56, "pixels"),
        *draw_stages(record, axes),
        write_text(6, BATCH_LINE, "batch"),
        *write_batches(record, axes),
        write_text(6, RATE_HIGH + 6, "rate, at"),
        write_text(6, RATE_HIGH + 16, f"most {highest:.2g}"),
    ]

    # Optimizers have a line each where their rates differ.
    drawn: list[Trace] = []
    for trace in rates.values():
        if trace not in drawn:
            kind = "apart" if drawn else "rate"
            lines.append(draw_line(kind, [(axes.x(clock), axes.y_of_rate(rate)) for clock, rate in trace]))
            drawn.append(trace)

    # The size that D has, where it is another than G's.
    if record["discriminator"]:
        lines.append(draw_line("apart", [(axes.x(clock), axes.y(height)) for clock, height in record["discriminator"]]))
    return "\n".join([*lines, "</svg>", ""])


def draw_stages(record: dict[str, Any], axes: Axes) -> list[str]:
    """Return a bar for each stage, as high as its images, with what its fade leaves out in another colour."""
    lines = []
    ends = [*(stage["begin"] for stage in record["stages"][1:]), record["total"]]
    ground: float = FLOOR
    for stage, end in zip(record["stages"], ends, strict=True):
        # Networks that are whole from the start spend nothing below their last size.
        if end == stage["begin"]:
            continue
        begin = axes.x(stage["begin"])
        top = axes.y(stage["height"])
        lines.append(f'<path class="size" d="M{begin:.1f} {FLOOR}V{top:.1f}H{axes.x(end):.1f}V{FLOOR}z"/>')
        faded = [point for point in record["alpha"] if stage["begin"] <= point[0] < end and point[1] < 1]
        if faded:
            slope = [(axes.x(clock), ground + alpha * (top - ground)) for clock, alpha in faded]
            path = "".join(f"L{x:.1f} {y:.1f}" for x, y in slope)
            lines.append(f'<path class="fade" d="M{begin:.1f} {top:.1f}{path}L{slope[-1][0]:.1f} {top:.1f}z"/>')
        lines.append(write_text(axes.x(end) - 2, top - 3, stage["label"], "end"))
        ground = top
    return lines


def write_batches(record: dict[str, Any], axes: Axes) -> list[str]:
    """Return the batch size wherever it becomes another."""
    lines = []
    before = None
    for stage in record["stages"]:
        if stage["batch"] != before:
            lines.append(write_text(axes.x(stage["begin"]), BATCH_LINE, str(stage["batch"])))
        before = stage["batch"]
    return lines


def write_text(x: float, y: float, text: str, anchor: str = "start") -> str:
    """Return a text of the picture."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'


def draw_line(kind: str, points: Sequence[tuple[float, float]]) -> str:
    """Return a line through points of the picture."""
    return f'<polyline class="{kind}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>'


def read_record(picture: Path) -> dict[str, Any]:
    """Return what a picture was drawn from."""
    text = picture.read_text(encoding="utf-8")
    record: dict[str, Any] = json.loads(text.partition("<metadata>")[2].partition("</metadata>")[0])
    return record


if __name__ == "__main__":
    main(sys.argv[1:])

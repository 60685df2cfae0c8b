"""Draw what a hard switch costs by all published plans, from their analyses: docs/images/hard_or_soft.svg.

    python scripts/draw_switches.py

The picture holds the numbers that it was drawn from, by which a test notices that a result has changed.
"""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("svg")

from matplotlib import pyplot

from pggan_kit.system.json_text import json_text

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "experiments/results"
PICTURE = ROOT / "docs/images/hard_or_soft.svg"

ROWS = (
    ("hard: the plan", "switch_demo", "hard"),
    ("hard: new seeds, on a GPU", "switch_demo/again", "hard"),
    ("hard: batch 16 instead of 32", "switch_demo/batch", "hard"),
    ("hard: a quarter of the learning rate", "switch_demo/rate", "hard"),
    ("hard, new blocks begin at zero", "preserving_demo", "hard_preserving"),
    ("hard: emoji in colour, 64x64 pixels", "emoji", "hard"),
    ("cosine fade", "switch_demo", "cosine"),
    ("linear fade, one weight nudged", "switch_demo", "nudged"),
    ("no growing, as much arithmetic", "switch_demo", "no_growing"),
    ("no growing, emoji, the recipe's rate", "emoji", "whole"),
    ("no growing, emoji, half the rate", "emoji/rate", "whole"),
)
"""Label, folder of the results, and variant, which is compared with the linear fade of the same folder."""

CONTROLS = 5
"""Number of rows at the end that are controls."""

TICKS = (-0.1, 0.0, 0.25, 0.5, 1.0, 2.0)
"""Relative differences that the axis names."""

CHANGE, CONTROL = "#c4540a", "#4a7ab5"
"""Colours that can be told apart on white and on black."""


class Difference(NamedTuple):
    """The mean difference of log FID from the linear fade, its interval of 95 %, and the pairs."""

    label: str
    mean: float
    low: float
    high: float
    pairs: int


def read_differences() -> list[Difference]:
    """Return the rows of the picture, from the analyses under experiments/results."""
    differences = []
    for label, folder, variant in ROWS:
        analysis = json.loads((RESULTS / folder / "analysis.json").read_text("utf-8"))
        (contrast,) = (each for each in analysis["contrasts"] if each["variant"] == variant)
        low, high = contrast["interval"]
        differences.append(Difference(label, contrast["mean"], low, high, contrast["n"]))
    return differences


def draw_differences(differences: list[Difference]) -> str:
    """Return an SVG with a row for each difference, on a logarithmic axis of the ratio of distances."""
    matplotlib.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "hard or soft", "font.size": 9}
    figure, axes = pyplot.subplots(figsize=(7.2, 3.4), layout="constrained")
    for place, row in enumerate(reversed(differences)):
        colour = CONTROL if place < CONTROLS else CHANGE
        axes.plot([row.low, row.high], [place, place], color=colour, linewidth=2)
        axes.plot([row.mean], [place], "o", color=colour)
    axes.axvline(0, color="#888888", linewidth=0.8)
    axes.set_yticks(range(len(differences)), [f"{row.label} ({row.pairs} pairs)" for row in reversed(differences)])
    axes.set_xticks([math.log1p(tick) for tick in TICKS], [f"{tick:+.0%}" if tick else "0" for tick in TICKS])
    axes.set_xlabel("Fréchet distance relative to that of the linear fade (mean, 95 %)")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)

    # Text and lines that are seen on white and on black.
    for text in [*axes.get_xticklabels(), *axes.get_yticklabels(), axes.xaxis.label]:
        text.set_color("#777777")
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#888888")
    axes.tick_params(color="#888888")
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    pyplot.close(figure)
    return file.getvalue()


def write_picture() -> None:
    """Write the picture, and the numbers in it as a comment."""
    differences = read_differences()
    numbers = json_text(differences)
    svg = draw_differences(differences).replace("<svg ", f"<!-- {numbers} -->\n<svg ", 1)
    PICTURE.write_text(svg, "utf-8")


def read_numbers(svg: str) -> list[Difference]:
    """Return the numbers that a picture was drawn from."""
    comment = svg.split("<!-- [[", 1)[1].split("]] -->", 1)[0]
    return [Difference(*row) for row in json.loads(f"[[{comment}]]")]


if __name__ == "__main__":
    write_picture()

"""Reduce the values that a run measured at its ticks to endpoints: areas under the curve, images to a stated quality.

They are values like those of an evaluation, with names of their own: `FID_area_28x28` for one stage, `FID_area` for the
whole run and `images_to_FID_10`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import integrate, stats

from pggan_kit.errors import RunError
from pggan_kit.evaluation.scales import convert_to_scale
from pggan_kit.runs.branches import list_lineage
from pggan_kit.runs.directory import RunDirectory

CENSORED = "censored"
"""Key of the rows of images to a quality: the clock at the end of a run that never reached it, else None.

A run that neither reached it nor ended with a finite value has failed, and is not censored.
"""


@dataclass(frozen=True)
class Tick:
    """A value at a tick.

    Attributes:
        images: The clock.
        stage: Number of the stage, from 0.
        begin: Clock at which the stage began.
        value: The value; None where it is not finite.
    """

    images: int
    stage: int
    begin: int
    value: float | None


def name_area(name: str, size: str | None = None) -> str:
    """Return the name of the area under a value's curve, over the stage of a size or over the whole run."""
    return f"{name}_area" if size is None else f"{name}_area_{size}"


def name_images(name: str, quality: float) -> str:
    """Return the name of the images to a quality."""
    return f"images_to_{name}_{quality:g}"


def list_endpoint_quantities(
    curves: Sequence[str],
    quality: Mapping[str, float],
    quantities: Mapping[str, Mapping[str, str]],
    sizes: Iterable[str],
) -> dict[str, dict[str, str]]:
    """Return `direction` and `scale` of each endpoint, by its name.

    Args:
        curves: Values whose areas are endpoints.
        quality: Quality to reach, by the value's name.
        quantities: `direction` and `scale` of the values at ticks.
        sizes: Sizes of the stages of all variants.
    """
    # Areas are in the units of the curve.
    endpoints: dict[str, dict[str, str]] = {}
    for name in curves:
        for size in (None, *sizes):
            endpoints[name_area(name, size)] = dict(quantities[name])

    # Images to a quality are compared by their logarithm, whatever the curve is.
    for name, wanted in quality.items():
        endpoints[name_images(name, wanted)] = {"direction": "lower", "scale": "log"}
    return endpoints


def read_ticks(files: RunDirectory, name: str) -> list[Tick]:
    """Return the ticks of a run at which a value was measured, those of the run that it began from included.

    A tick counts once, as its last row has it.

    Raises:
        RunError: The run that it began from is not there any more, or its rows name no stage.
    """
    missing: list[str] = []
    lineage = list_lineage(files, missing.append)
    if missing:
        raise RunError(f"{missing[0]}; a curve over the whole run needs them: put that run back")

    # The last row of a tick counts.
    rows: dict[int, dict[str, Any]] = {}
    for directory, end in lineage:
        for row in directory.stats():
            if not isinstance(row.get("Progress/stage"), (int, float)):
                raise RunError(f"{directory.path / 'stats.jsonl'} is damaged: images {row['images']} names no stage")
            if row["images"] <= end:
                rows[row["images"]] = row

    # A stage begins where the one before it ended, also where a value is not defined for that one.
    ticks = []
    stage = -1
    begin = 0
    last_images = 0
    for images, row in sorted(rows.items()):
        if row["Progress/stage"] != stage:
            stage = int(row["Progress/stage"])
            begin = last_images
        last_images = images
        if f"Metrics/{name}" in row:
            value = row[f"Metrics/{name}"]
            is_finite = isinstance(value, (int, float)) and math.isfinite(value)
            ticks.append(Tick(images, stage, begin, float(value) if is_finite else None))
    return ticks


def measure_endpoints(
    files: RunDirectory,
    curves: Sequence[str],
    quality: Mapping[str, float],
    quantities: Mapping[str, Mapping[str, str]],
    sizes: Sequence[str],
) -> list[dict[str, Any]]:
    """Return the rows of a run's endpoints, as `evaluate` gives those of metrics.

    Args:
        files: The run's directory.
        curves: Values whose areas are endpoints.
        quality: Quality to reach, by the value's name.
        quantities: `direction` and `scale` of the endpoints, see `list_endpoint_quantities`.
        sizes: Size of each of the run's stages.

    Raises:
        RunError: A value was measured at no tick, or ticks are missing.
    """
    rows = []
    for name in curves:
        ticks = read_ticks(files, name)
        if not ticks:
            raise RunError(f"{files.path} measured no {name} at its ticks: bind train.metrics in ablate.bindings")
        quantity = quantities[name_area(name)]
        last_ticks: dict[int | None, Tick] = {tick.stage: tick for tick in ticks}
        for stage, value in compute_areas(ticks, quantity["scale"]).items():
            size = None if stage is None else sizes[stage]
            rows.append(_make_row(name_area(name, size), value, last_ticks.get(stage, ticks[-1]), sizes))
        if name in quality:
            last = len(sizes) - 1
            reached = find_images_to_quality(ticks, quality[name], quantity["direction"], quantity["scale"], last)
            row = _make_row(name_images(name, quality[name]), reached, ticks[-1], sizes)

            # A run whose curve ends without a finite value has failed: nobody knows how long it would have taken.
            is_censored = reached is None and ticks[-1].value is not None
            rows.append({**row, CENSORED: ticks[-1].images if is_censored else None})
    return rows


def _make_row(name: str, value: float | None, end: Tick, sizes: Sequence[str]) -> dict[str, Any]:
    """Return the row of a value that was known at a tick."""
    return {
        "metric": name,
        "value": value,
        "floor": None,
        "count": None,
        "floor_count": None,
        "size": sizes[end.stage],
        "stage": end.stage,
        "images": end.images,
        "average": None,
    }


def compute_areas(ticks: Sequence[Tick], scale: str) -> dict[int | None, float | None]:
    """Return the area under a curve divided by its images, for each stage and (None) for the whole run,
    without stages at which it was not measured.

    On a logarithmic scale it is the geometric mean over images: the exponential of the mean of the logarithm. Between
    ticks of a stage the curve is straight on the scale; from the stage's begin to its first tick the first value
    holds, and no line joins two stages, whose values are of images of different sizes. A tick without a finite value is
    left out, unless it is the last one of its stage: what holds to the end is not known then.

    Args:
        ticks: Ticks in the order of the clock.
        scale: `log`, or `plain`.

    Returns:
        The values; None for a stage whose last tick has no finite value, and then for the run.
    """
    by_stage: dict[int, list[Tick]] = {}
    for tick in ticks:
        by_stage.setdefault(tick.stage, []).append(tick)

    # The mean over each stage, and over all of them, weighted with their images.
    areas: dict[int | None, float | None] = {}
    total: float | None = 0.0
    images = 0
    for stage, own in sorted(by_stage.items()):
        begin = own[0].begin
        end = own[-1].images
        mean = _average_over_images(own, begin, end, scale)
        areas[stage] = None if mean is None else _convert_from_scale(mean, scale)
        total = None if mean is None or total is None else total + mean * (end - begin)
        images += end - begin
    areas[None] = None if total is None else _convert_from_scale(total / images, scale)
    return areas


def _average_over_images(ticks: Sequence[Tick], begin: int, end: int, scale: str) -> float | None:
    """Return the mean of a stage's curve over its images, on the scale; None if it ends without a finite value."""
    if ticks[-1].value is None:
        return None
    known = [(tick.images, convert_to_scale(tick.value, scale)) for tick in ticks if tick.value is not None]
    if any(math.isinf(value) for _, value in known):
        return -math.inf  # a perfect value has no logarithm

    # The first value holds from the beginning.
    images = [float(begin), *(place for place, _ in known)]
    values = [known[0][1], *(value for _, value in known)]
    return float(integrate.trapezoid(values, images) / (end - begin))


def find_images_to_quality(
    ticks: Sequence[Tick], quality: float, direction: str, scale: str, stage: int
) -> float | None:
    """Return the clock at which a stage's curve first reaches a quality; None if it never does.

    Args:
        ticks: Ticks in the order of the clock.
        quality: The value to reach.
        direction: Which values are better, `lower` or `higher`.
        scale: Scale on which the curve is straight between two ticks.
        stage: Number of the stage; values at other sizes count for nothing.
    """
    # Lower is better from here on, on the scale on which the curve is straight.
    sign = 1.0 if direction == "lower" else -1.0
    wanted = convert_to_scale(quality, scale)
    before: tuple[int, float] | None = None
    for tick in ticks:
        if tick.stage != stage or tick.value is None:
            continue
        value = convert_to_scale(tick.value, scale)
        if sign * value <= sign * wanted:
            # Between two ticks the curve is a straight line; before the first, or to or from a value of 0 on a
            # logarithmic scale, there is none.
            if before is None or math.isinf(value) or math.isinf(before[1]):
                return float(tick.images)
            share = (before[1] - wanted) / (before[1] - value)
            return before[0] + share * (tick.images - before[0])
        before = (tick.images, value)
    return None


def _convert_from_scale(value: float, scale: str) -> float:
    return value if scale == "plain" else math.exp(value)


def compare_times(own: Sequence[tuple[float, bool]], other: Sequence[tuple[float, bool]]) -> float | None:
    """Return the p-value of the log-rank test between two variants' images to a quality (unpaired).

    Args:
        own: Of each run the clock at which it reached the quality, or else at which it ended, and whether it did.
        other: The same of the other variant.

    Returns:
        The p-value; None where no run reached the quality, or a variant has no runs.
    """
    # Without an event there is nothing to test.
    if not own or not other or not any(reached for _, reached in (*own, *other)):
        return None

    # Runs that never reached the quality are censored at their end.
    samples = []
    for runs in (own, other):
        reached_at = [time for time, reached in runs if reached]
        ended_at = [time for time, reached in runs if not reached]
        samples.append(stats.CensoredData(uncensored=reached_at, right=ended_at))

    # Where nothing but one variant was left at every event, the statistic is 0 / 0.
    with np.errstate(invalid="ignore"):
        p = float(stats.logrank(*samples).pvalue)
    return p if math.isfinite(p) else 1.0

"""What the metrics of a trial cost: how often they are measured, against runs that were trained, and how long."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import pytest
from helpers.paths import ABLATION_PLUGIN
from torch import Tensor

from pggan_kit import Quantity
from pggan_kit.api.prepare import prepare
from pggan_kit.benchmarking.evaluation_cost import (
    EvaluationClock,
    count_tick_evaluations,
    estimate_evaluations,
)
from pggan_kit.benchmarking.evaluation_time import measure_evaluation

MEASURED = ("train.metrics = [@metrics.Gap()]", "evaluation.count = 4")


@pytest.mark.parametrize(
    "lines",
    [
        ("train.tick = 6", "evaluation.every = 12"),
        ("train.tick = 6", "evaluation.every = {4: 1, 8: 'phase'}"),
        ("train.tick = 10", "evaluation.every = 1", "schedule.batch_size = {4: 4, 8: 2}", "schedule.fade_images = 6"),
        ("train.tick = 6", "train.switch = @switches.Hard()"),
        ("train.tick = 100", "schedule.stable_images = {4: 0, 8: 8}"),
    ],
)
def test_metrics_are_measured_as_often_as_is_said(
    lines: tuple[str, ...], train: Callable[..., Any], tiny: Callable[..., str], stub: str
) -> None:
    run = train(*MEASURED, *lines, plugins=(str(ABLATION_PLUGIN),))
    rows = [row for row in run.files.stats() if "Metrics/gap" in row]
    prepared = prepare("tiny.gin", plugins=[stub, str(ABLATION_PLUGIN)])
    schedule = prepared.schedule()
    counts = {stage.index: count_tick_evaluations(prepared, schedule, stage) for stage in schedule.stages}
    assert counts == {**dict.fromkeys(counts, 0), **Counter(row["Progress/stage"] for row in rows)} and rows

    found = estimate_evaluations(EvaluationClock(), prepared, prepared, [1, 2], averages=3)
    assert found["tick_evaluations"] == counts[1] + counts[2]
    assert found["evaluation_images"] == 4 * (counts[1] + counts[2] + 3) and found["evaluation_hours"] > 0
    clock = EvaluationClock({(stage.size, "ticks"): 36.0 for stage in schedule.stages} | {("16x16", "end"): 360.0})
    hours = estimate_evaluations(clock, prepared, None, [1, 2], averages=3)["evaluation_hours"]
    assert hours == pytest.approx((counts[1] + counts[2]) / 100), "a trunk is not evaluated in the end"
    both = estimate_evaluations(clock, prepared, prepared, [1, 2], averages=3)["evaluation_hours"]
    assert both == pytest.approx(hours + 0.3)


class Slow:
    """A metric that takes 2 ms for an image and 50 ms for a comparison."""

    quantities = MappingProxyType({"slow": Quantity("lower")})

    def __init__(self) -> None:
        self.compared: list[tuple[int, int]] = []
        self.described = 0

    def describe(self, images: Tensor) -> Tensor:
        time.sleep(0.002 * len(images))
        self.described += len(images)
        return images.flatten(1)

    def fingerprint(self) -> str:
        return "slow"

    def compare(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        time.sleep(0.05)
        self.compared.append((len(real), len(fake)))
        return {"slow": 0.0}


def test_a_few_images_give_the_time_of_all(tiny: Callable[..., str], stub: str) -> None:
    prepared = prepare(tiny("evaluation.count = 1_000"), plugins=[stub])
    schedule = prepared.schedule()
    stage = schedule.stages[1]
    assert measure_evaluation(prepared, schedule, stage).seconds == 0.0, "there are no metrics"
    assert count_tick_evaluations(prepared, schedule, stage) == 0
    slow = Slow()
    prepared.built.experiment.metrics = (slow, slow)
    clock = EvaluationClock()
    seconds = clock.find_seconds("ticks", prepared, schedule, stage)
    assert seconds > 1_000 * 0.002 + 2 * 0.05 and slow.compared == [(1_000, 1_000)] * 2
    assert slow.described < 50, "both metrics share a description, and few images are described"
    assert clock.find_seconds("ticks", prepared, schedule, stage) == seconds and len(slow.compared) == 2

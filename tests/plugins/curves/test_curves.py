"""Each curve against its formula over the run, its stages and its phases; wrong values; and the suite of curves."""

from __future__ import annotations

import importlib
import inspect
import math
import pkgutil
from typing import Any

import pytest
from helpers.paths import ROOT

import pggan_plugins
from pggan_kit.errors import SettingError
from pggan_kit.schedule import FADE, Schedule, ScheduleSettings
from pggan_kit.testing import CurveSuite
from pggan_plugins.curves import Constant, Cosine, Exponential, Linear, Steps, WarmUp

SCHEDULE = ScheduleSettings((4, 8, 16), fade_images=10, stable_images=20, batch_size=1).resolve(1, 1, 0)
STARTS = [0, 20, 50]
"""Clocks at which the stages begin; the run ends at 80."""

SHAPES = {
    Linear: lambda begin, end, t: begin * (1 - t) + end * t,
    Cosine: lambda begin, end, t: end + 0.5 * (begin - end) * (1 + math.cos(math.pi * t)),
    Exponential: lambda begin, end, t: math.exp((1 - t) * math.log(begin) + t * math.log(end)),
}
"""Each curve as a function of both values and of the share of the way; of `Cosine`, Loshchilov and Hutter 2017 (5)."""


def list_spans(schedule: Schedule, over: str) -> list[tuple[int, int]]:
    """Return begin and end of each span, by hand."""
    if over == "run":
        return [(0, 80)]
    if over == "stage":
        return [(0, 20), (20, 50), (50, 80)]
    return [(0, 20), (20, 30), (30, 50), (50, 60), (60, 80)]


@pytest.mark.parametrize("curve", SHAPES)
@pytest.mark.parametrize("over", ["run", "stage", "phase"])
@pytest.mark.parametrize(("start", "end"), [(0, None), (4, 9), (-8, None), (-8, -3), (3, -2)])
def test_curves_between_values_by_formula(curve: Any, over: str, start: int, end: int | None) -> None:
    moving = curve(0.5, 0.01, over, start, end)
    for low, high in list_spans(SCHEDULE, over):
        first = low + start if start >= 0 else high + start
        last = high if end is None else low + end if end >= 0 else high + end
        for images in range(low, high):
            share = min(1.0, max(0.0, (images - first) / (last - first)))
            starts = [each for each in STARTS if each <= images]
            value = moving.at(SCHEDULE.at(images, starts))
            assert value == pytest.approx(SHAPES[curve](0.5, 0.01, share), rel=1e-12), (images, share)


@pytest.mark.parametrize("curve", SHAPES)
def test_values_are_exact_before_and_after_the_way(curve: Any) -> None:
    moving = curve(0.3, 0.1, "run", 10, 70)
    assert [moving.at(SCHEDULE.at(images, [0, 20, 50])) for images in (50, 70, 99)][1:] == [0.1, 0.1]
    assert moving.at(SCHEDULE.at(10, [0])) == 0.3


def test_a_way_longer_than_its_span_begins_within_it() -> None:
    """With 100 of the last 80 images, a fifth of the way is behind at the beginning."""
    assert Linear(1.0, 0.0, "run", -100).at(SCHEDULE.at(0, [0])) == pytest.approx(0.8)
    assert Linear(1.0, 0.0, "stage", 25).at(SCHEDULE.at(19, [0])) == 1.0


@pytest.mark.parametrize("curve", SHAPES)
def test_a_way_that_ends_before_it_begins_jumps_at_its_end(curve: Any) -> None:
    """In a stage of 20 images, from 15 images on until 10 before the end; in one of 30 it moves."""
    crossing = curve(1.0, 0.5, "stage", 15, -10)
    values = [crossing.at(SCHEDULE.at(images, [0])) for images in range(20)]
    assert values == [1.0] * 10 + [0.5] * 10
    assert crossing.at(SCHEDULE.at(20 + 16, [0, 20])) == pytest.approx(SHAPES[curve](1.0, 0.5, 0.2))

    # A run, or a phase, that is shorter than the 100 images before its end has arrived from its beginning on.
    for over in ("run", "phase"):
        arrived = curve(1.0, 0.5, over, 0, -100)
        assert {arrived.at(SCHEDULE.at(images, [0])) for images in range(20)} == {0.5}


def test_a_stage_that_lasts_longer_than_planned_keeps_the_last_value() -> None:
    position = SCHEDULE.at(45, [0])
    assert [Linear(1.0, 0.0, over).at(position) for over in ("stage", "phase")] == [0.0, 0.0]
    assert (position.phase_start, position.phase_end) == (0, 20)
    fading = SCHEDULE.at(47, [0, 45])
    assert (fading.phase, fading.phase_start, fading.phase_end) == (FADE, 45, 55)


@pytest.mark.parametrize(("over", "at_25", "at_31"), [("run", 2.0, 3.0), ("stage", 2.0, 2.0), ("phase", 2.0, 1.0)])
def test_steps_hold_from_their_place_on(over: str, at_25: float, at_31: float) -> None:
    steps = Steps({30: 3.0, 0: 1.0, 5: 2.0}, over)
    assert steps.at(SCHEDULE.at(25, [0, 20])) == at_25
    assert steps.at(SCHEDULE.at(31, [0, 20])) == at_31
    assert [Steps({0: 1.0, 5: 2.0}).at(SCHEDULE.at(images, [0])) for images in (0, 4, 5)] == [1.0, 1.0, 2.0]


def test_a_warm_up_rises_to_numbers_curves_and_values_per_stage() -> None:
    early = SCHEDULE.at(4, [0])
    assert WarmUp(2.0, 16).at(early) == 0.5
    assert WarmUp(2.0, 16, begin=0.5).at(early) == pytest.approx(2.0 * (0.5 + 0.5 / 4))
    assert WarmUp(2.0, 16).at(SCHEDULE.at(16, [0])) == 2.0
    assert WarmUp(Linear(1.0, 0.0), 16).at(early) == pytest.approx((1 - 4 / 80) / 4)
    in_fade = SCHEDULE.at(24, [0, 20])
    assert WarmUp({4: 1.0, 8: Constant(3.0)}, 8, over="stage").at(in_fade) == 1.5
    assert WarmUp(3.0, 8, over="phase").at(SCHEDULE.at(32, [0, 20])) == 0.75


class TestConstant(CurveSuite):
    bad_arguments = ({"value": math.nan}, {"value": math.inf})

    def make(self) -> Constant:
        return Constant(2.0)


class TestLinear(CurveSuite):
    bad_arguments: Any = (
        *({"begin": math.inf, "end": 1.0}, {"end": math.nan, "begin": 1.0}),
        *({"over": "epoch", "begin": 1.0, "end": 0.0}, {"start_images": math.inf, "begin": 1.0, "end": 0.0}),
        {"end_images": 20, "start_images": 20, "begin": 1.0, "end": 0.0},
        {"end_images": 10, "start_images": 20, "begin": 1.0, "end": 0.0},
        {"end_images": -20, "start_images": -10, "begin": 1.0, "end": 0.0},
        {"end_images": 30, "start_images": -10, "begin": 1.0, "end": 0.0},
        {"end_images": 0, "begin": 1.0, "end": 0.0},
    )

    def make(self) -> Linear:
        return Linear(1.0, 0.1, "phase", start_images=2, end_images=-2)


class TestCosine(CurveSuite):
    bad_arguments: Any = ({"over": "x", "begin": 1.0, "end": 0.0},)

    def make(self) -> Cosine:
        return Cosine(1.0, 0.0, "stage")


class TestExponential(CurveSuite):
    bad_arguments: Any = (
        *({"begin": 0.0, "end": 1.0}, {"end": -1.0, "begin": 1.0}, {"end": 0.0, "begin": 1.0}),
        {"begin": math.inf, "end": 1.0},
    )

    def make(self) -> Exponential:
        return Exponential(1e-2, 1e-4, start_images=-40)


class TestSteps(CurveSuite):
    bad_arguments: Any = (
        *({"values": {}}, {"values": {4: 1.0}}, {"values": {0: 1.0, -4: 2.0}}, {"values": {0: 1.0, 1.5: 2.0}}),
        *({"values": {0: math.nan}}, {"values": 3.0}, {"over": "never", "values": {0: 1.0}}),
    )

    def make(self) -> Steps:
        return Steps({0: 1.0, 5: 0.5, 11: 0.25}, over="stage")


class TestWarmUp(CurveSuite):
    bad_arguments: Any = (
        *({"images": 0, "value": 1.0}, {"begin": 1.0, "value": 1.0, "images": 4}, {"value": math.nan, "images": 4}),
        *({"begin": -0.1, "value": 1.0, "images": 4}, {"over": "x", "value": 1.0, "images": 4}),
    )

    def make(self) -> WarmUp:
        return WarmUp(Cosine(1.0, 0.1), images=10, over="stage")


def test_errors_say_what_to_do() -> None:
    with pytest.raises(SettingError, match=r"^end_images must be above start_images \(20\), and is 10$"):
        Linear(1.0, 0.0, start_images=20, end_images=10)
    with pytest.raises(SettingError, match=r"^end_images must be below 0 like start_images \(-5\), or None, and is"):
        Linear(1.0, 0.0, start_images=-5, end_images=10)
    with pytest.raises(SettingError, match=r"^values must have one from 0 images on, e\.g\. "):
        Steps({5: 1.0})


def test_the_guide_lists_all_settings_that_may_move() -> None:
    text = (ROOT / "docs/guides/curves.md").read_text()
    missing = []
    for module in pkgutil.iter_modules(pggan_plugins.__path__):
        kind = module.name
        package = importlib.import_module(f"pggan_plugins.{kind}")
        for component in getattr(package, "components", list)():
            for name, parameter in inspect.signature(component.factory).parameters.items():
                # Optimizers and penalties are listed as kinds.
                if "Varying" not in str(parameter.annotation) or kind == "optimizers" or name == "weight":
                    continue
                if f"`{kind}.{component.name}" not in text or name not in text:
                    missing.append(f"{kind}.{component.name}.{name}")
    assert not missing

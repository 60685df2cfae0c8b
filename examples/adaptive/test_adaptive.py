"""The parts pass the conformance suites, the switch waits when it should, and its gin file trains and resumes."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from adaptive import Adaptive, Diary

import pggan_kit
from pggan_kit import Component, Run, hookimpl
from pggan_kit.testing import ObserverSuite, SwitchSuite, make_stages

HERE = Path(__file__).parent


class TestAdaptive(SwitchSuite):
    bad_arguments = ({"patience": 1.0}, {"latest": 1.0})

    def make(self) -> Adaptive:
        return Adaptive(patience=0.0)


class TestDiary(ObserverSuite):
    def make(self) -> Diary:
        return Diary()


def tick(switch: Adaptive, stage: Any, images: int, sign: float) -> None:
    run: Any = SimpleNamespace(state=SimpleNamespace(images=1000 + images, starts=[0, 1000]))
    switch.after_tick(run, stage, {"Scores/real_sign": sign})


def test_it_waits_and_then_makes_up_for_it() -> None:
    stage = make_stages((4, 8), fade_images=100)[1]
    switch = Adaptive(patience=0.5, latest=0.75)
    assert switch.fade_alpha(stage, 0.2) == pytest.approx(0.2)
    tick(switch, stage, 20, sign=0.9)
    assert switch.fade_alpha(stage, 0.3) == pytest.approx(0.2)
    tick(switch, stage, 40, sign=0.1)
    assert switch.fade_alpha(stage, 0.7) == pytest.approx(0.2 + 0.8 * 0.3 / 0.6)
    tick(switch, stage, 80, sign=0.9)  # too late to wait
    assert switch.fade_alpha(stage, 1.0) == pytest.approx(1.0)


def test_each_fade_begins_from_scratch() -> None:
    first, second = make_stages((4, 8, 16), fade_images=100)[1:]
    switch = Adaptive(patience=0.5)
    tick(switch, first, 50, sign=0.9)
    assert switch.fade_alpha(first, 0.6) == pytest.approx(0.5)
    assert switch.fade_alpha(second, 0.1) == pytest.approx(0.1)


SHORT = [
    "schedule.sizes = (7, 14)",
    "schedule.fade_images = 128",
    "schedule.stable_images = 32",
    "train.tick = 32",
    "switches.Adaptive.patience = -0.999",
]
CONFIG, PLUGIN = HERE / "adaptive.gin", HERE / "adaptive.py"


def test_its_experiment_trains(tmp_path: Path) -> None:
    short = [*SHORT, "train.observers = [@observers.Diary()]"]
    run = pggan_kit.train(CONFIG, short, plugins=[PLUGIN], run_dir=tmp_path / "run")
    rows = [line.split(",") for line in (run.directory / "fades.csv").read_text().splitlines()]
    assert [int(row[0]) for row in rows] == run.stats.column("images")
    alphas = [float(row[2]) for row in rows if row[1] == "14x14"]
    assert alphas == sorted(alphas) and alphas[-1] == 1.0


class Crash:
    """Fails once, between the line of the diary and the checkpoint."""

    failed = False

    @hookimpl
    def after_tick(self, run: Run) -> None:
        if run.state.images >= 96 and not Crash.failed:
            Crash.failed = True
            with (run.directory / "fades.csv").open("a") as file:
                file.write("12")  # a process that is killed leaves half a line
            raise RuntimeError("the machine is gone")


class Crashing:
    @hookimpl
    def components(self) -> list[Component]:
        return [Component("observers", "Crash", Crash)]


def test_a_resumed_diary_has_each_line_once(tmp_path: Path) -> None:
    short = [*SHORT, "train.observers = [@observers.Diary(), @observers.Crash()]"]
    plugins = [PLUGIN, Crashing()]
    with pytest.raises(Exception, match="the machine is gone"):
        pggan_kit.train(CONFIG, short, plugins=plugins, run_dir=tmp_path / "stopped")
    stopped = pggan_kit.resume(tmp_path / "stopped", plugins=plugins)
    whole = pggan_kit.train(CONFIG, short, plugins=plugins, run_dir=tmp_path / "whole")
    assert len((stopped.directory / "fades.csv").read_text().splitlines()) == len(whole.stats) > 3
    assert (stopped.directory / "fades.csv").read_text() == (whole.directory / "fades.csv").read_text()

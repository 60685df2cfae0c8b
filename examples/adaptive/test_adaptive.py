"""Tests of the plugin: the conformance suites of its kinds, when the fade waits, and a run with its gin file."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from adaptive import Adaptive, Diary

import pggan_kit
from pggan_kit import JsonLines, hookimpl
from pggan_kit.testing import ObserverSuite, SwitchSuite, make_stages

HERE = Path(__file__).parent
CONFIG = HERE / "adaptive.gin"
PLUGIN = HERE / "adaptive.py"
SHORT = [
    "schedule.sizes = (7, 14)",
    "schedule.fade_images = 128",
    "schedule.stable_images = 32",
    "train.tick = 32",
    "architectures.PGGAN.channels = 4",
    "datasets.MNIST.limit = 100",
    "switches.Adaptive.patience = -0.999",
    "train.observers = [@observers.Diary()]",
]


class TestAdaptive(SwitchSuite):
    bad_arguments = ({"patience": 1.0}, {"latest": 1.0})

    def make(self) -> Adaptive:
        return Adaptive(patience=0.0)


class TestDiary(ObserverSuite):
    def make(self) -> Diary:
        return Diary()


def run_tick(switch: Adaptive, stage: Any, images: int, sign: float) -> None:
    """Call the hook `images` after the start of a stage at 1000, with a mean sign of the reals' scores."""
    run: Any = SimpleNamespace(state=SimpleNamespace(images=1000 + images, starts=[0, 1000]))
    switch.after_tick(run, stage, {"Scores/real_sign": sign})


def test_it_waits_and_then_catches_up() -> None:
    stage = make_stages((4, 8), fade_images=100)[1]
    switch = Adaptive(patience=0.5, latest=0.75)
    assert switch.fade_alpha(stage, 0.2) == pytest.approx(0.2)
    run_tick(switch, stage, 20, sign=0.9)
    assert switch.fade_alpha(stage, 0.3) == pytest.approx(0.2)
    run_tick(switch, stage, 40, sign=0.1)
    assert switch.fade_alpha(stage, 0.7) == pytest.approx(0.2 + 0.8 * 0.3 / 0.6)
    run_tick(switch, stage, 80, sign=0.9)  # too late to wait
    assert switch.fade_alpha(stage, 1.0) == pytest.approx(1.0)


def test_each_fade_begins_at_alpha_0() -> None:
    first, second = make_stages((4, 8, 16), fade_images=100)[1:]
    switch = Adaptive(patience=0.5)
    run_tick(switch, first, 50, sign=0.9)
    assert switch.fade_alpha(first, 0.6) == pytest.approx(0.5)
    assert switch.fade_alpha(second, 0.1) == pytest.approx(0.1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> pggan_kit.Run:
    """A run that was never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    return pggan_kit.train(CONFIG, SHORT, plugins=[PLUGIN], run_dir=folder / "run")


def test_its_experiment_trains(whole: pggan_kit.Run) -> None:
    rows = JsonLines(whole.directory / "fades.jsonl").read()
    assert [row["images"] for row in rows] == whole.stats.column("images")
    alphas = [row["alpha"] for row in rows if row["size"] == "14x14"]
    assert alphas == sorted(alphas)
    assert alphas[-1] == 1.0


class Interrupt:
    """A plugin that stops the run at a clock, after the rows of the tick there and before it is saved."""

    @hookimpl
    def should_end(self, run: Any) -> None:
        if run.state.images == 96:
            raise KeyboardInterrupt


def test_a_resumed_run_writes_the_same_rows(whole: pggan_kit.Run, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        pggan_kit.train(CONFIG, SHORT, plugins=[PLUGIN, Interrupt()], run_dir=tmp_path / "cut")
    assert JsonLines(tmp_path / "cut" / "fades.jsonl").read()[-1]["images"] == 96
    resumed = pggan_kit.resume(tmp_path / "cut", plugins=[PLUGIN])
    written = (resumed.directory / "fades.jsonl").read_text()
    assert written == (whole.directory / "fades.jsonl").read_text()

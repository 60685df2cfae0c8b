"""`observers.TransitionShock`: its rows, against a run whose images, losses and gradients are known."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pggan_kit import hookimpl
from pggan_kit.api.train import resume
from pggan_kit.errors import TrainingError
from pggan_kit.layers.resampling import Area
from pggan_kit.schedule import Stage
from pggan_kit.system.json_lines import JsonLines
from pggan_kit.testing import ObserverSuite
from pggan_plugins.observers import TransitionShock
from pggan_plugins.observers.shock import (
    average_steps,
    divide_by_floor,
    measure_feature_jump,
    measure_gradient_norms,
)

SMALL = Stage(0, 4, 4, 1, 0, 40, 4)
LARGE = Stage(1, 8, 8, 1, 40, 40, 4, SMALL)


class Means:
    """A feature space of two: the mean of the left and of the right half of an image."""

    def __call__(self, images: Tensor) -> Tensor:
        return images.unflatten(3, (2, -1)).mean(dim=(1, 2, 4))


class TestTransitionShock(ObserverSuite):
    bad_arguments = ({"count": 0}, {"steps": 0}, {"watch": ""}, {"band": 0.0}, {"band": math.inf})

    def make(self) -> TransitionShock:
        return TransitionShock(count=4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, "count must be at least 1, and is 0"),
        ({"steps": 0}, "steps must be at least 1, and is 0"),
        ({"watch": "FID"}, "watch must name a metric's tag, e.g. 'Metrics/FID', not 'FID'"),
        ({"band": -1.0}, r"band must be above 0, and is -1\.0"),
    ],
)
def test_wrong_arguments_name_themselves(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        TransitionShock(**arguments)


class Scripted:
    """A run of two stages, 4x4 until 40 and 8x8 (fading until 80) until 120, whose images are given."""

    def __init__(self, folder: Path) -> None:
        self.directory = folder
        self.resumed = False
        self.is_new_branch = False
        self.alpha = {"generator": 1.0}
        self.files = SimpleNamespace(warn=pytest.fail)
        self.experiment = SimpleNamespace(image_resampling=Area(), precision="float32")
        self.images = {True: torch.zeros(2, 1, 4, 4), False: torch.zeros(2, 1, 4, 4)}
        self.nets = {name: nn.Linear(2, 1, bias=False) for name in ("generator", "discriminator")}
        self.state = SimpleNamespace(
            images=0, starts=[0], stage=SMALL, phase="stable", fading=False, network=self.nets.__getitem__
        )
        self.schedule = SimpleNamespace(
            at=lambda images, starts: SimpleNamespace(phase="fade" if len(starts) > 1 and images < 80 else "stable")
        )

    def fixed_latents(self, count: int) -> Tensor:
        return torch.zeros(count, 1)

    def fixed_labels(self, count: int) -> None:
        return None

    def generate(
        self, latents: Tensor, labels: None = None, average: bool = True, alpha: float | None = None
    ) -> Tensor:
        return self.images[average][: len(latents)]

    def step(self, observer: TransitionShock, loss: float, gradient: float = 0.0) -> None:
        self.state.images += 4
        for net in self.nets.values():
            net.weight.grad = torch.full_like(net.weight, gradient)
        observer.after_step(self, self.state, {"Loss/generator": torch.tensor(loss)})

    def tick(self, observer: TransitionShock, **metrics: float) -> None:
        stats = {f"Metrics/{name}": value for name, value in metrics.items()}
        observer.after_tick(self, self.state, {"Loss/generator": -1.0, **stats})

    def grow(self, observer: TransitionShock, images: Tensor) -> None:
        observer.after_stage(self)
        self.state.starts = [0, self.state.images]
        self.state.stage = LARGE
        self.state.phase = "fade"
        self.state.fading = True
        self.images = {True: images, False: 2 * images}
        self.alpha["generator"] = 0.0
        observer.before_stage(self, LARGE, self.state, continues=False)

    def rows(self) -> list[dict[str, Any]]:
        return JsonLines(self.directory / "transitions.jsonl").read()


@pytest.fixture
def run(tmp_path: Path) -> Scripted:
    return Scripted(tmp_path)


def pass_growth(run: Scripted, observer: TransitionShock) -> None:
    """Bring the run right behind the growth at 40, with losses 1 to 10 and gradients (3, 3) before."""
    observer.before_run(run)
    generator = torch.Generator().manual_seed(0)
    run.images = dict.fromkeys((True, False), torch.rand(2, 1, 4, 4, generator=generator))
    for number in range(10):
        run.step(observer, number + 1.0, 3.0)
    run.tick(observer, FID=6.0, FID_floor=2.0)
    run.grow(observer, torch.rand(2, 1, 8, 8, generator=generator))


def test_a_growth_is_measured_by_hand(run: Scripted) -> None:
    observer = TransitionShock(count=2, features=Means(), steps=2)
    pass_growth(run, observer)
    old = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    large = old.repeat_interleave(2, 2).repeat_interleave(2, 3)
    new = {"ema": run.images[True].double(), "generator": run.images[False].double()}
    for loss in (20.0, 22.0, 99.0):
        run.step(observer, loss, 5.0)
    run.tick(observer, FID=50.0, FID_floor=4.0)
    (row,) = run.rows()
    assert (row["images"], row["at"], row["event"]) == (52, 40, "growth")
    assert (row["from"], row["size"], row["stage"], row["alpha"]) == ("4x4", "8x8", 1, 0.0)
    for net, images in new.items():
        jump = math.sqrt(float(((images - large) ** 2).sum()) / images.numel())
        assert row[f"Transition/rms/{net}"] == pytest.approx(jump, rel=1e-5)
        halves = [torch.stack([x[..., :4].mean((1, 2, 3)), x[..., 4:].mean((1, 2, 3))], 1) for x in (large, images)]
        spread = ((halves[0] - halves[0].mean(0)) ** 2).sum() / 2
        moved = ((halves[1] - halves[0]) ** 2).sum() / 2
        assert row[f"Transition/features/{net}"] == pytest.approx(math.sqrt(float(moved / spread)), rel=1e-5)
    assert row["Transition/Loss/generator/before"] == 9.5
    assert row["Transition/Loss/generator/after"] == 21
    assert row["Transition/Gradient/discriminator/before"] == pytest.approx(3 * math.sqrt(2))
    assert row["Transition/Gradient/generator/after"] == pytest.approx(5 * math.sqrt(2))
    assert (row["Transition/Metrics/FID/before"], row["Transition/Metrics/FID/after"]) == (6, 50)
    assert not any("floor" in key for key in row)


def test_recovery_is_counted_in_floors_from_the_growth_on(run: Scripted) -> None:
    """3 floors before and a band of 1: back at 4 floors, which are 16 with a floor of 4."""
    observer = TransitionShock(count=2, band=1.0)
    pass_growth(run, observer)
    for value in (50.0, 16.1, 16.0, 3.0):
        run.step(observer, 0.0)
        run.tick(observer, FID=value, FID_floor=4.0)
    growth, recovery = run.rows()
    assert growth["event"] == "growth"
    assert recovery == {"images": 52, "event": "recovery", "at": 40, "size": "8x8", "Transition/recovery": 12}


def test_a_metric_that_is_missing_or_no_number_is_no_recovery(run: Scripted) -> None:
    observer = TransitionShock(count=2)
    pass_growth(run, observer)
    for metrics in ({}, {"FID": math.nan, "FID_floor": 4.0}, {"FID": 1.0}, {"FID": 1.0, "FID_floor": 0.0}):
        run.step(observer, 0.0)
        run.tick(observer, **metrics)
    assert [row["event"] for row in run.rows()] == ["growth"]
    assert divide_by_floor({"a": 3.0, "a_floor": 2.0}, "a") == 1.5


def test_the_end_of_a_fade_is_measured(run: Scripted) -> None:
    observer = TransitionShock(count=2)
    pass_growth(run, observer)
    for images in (60, 76, 80):
        run.state.images = images - 4
        run.step(observer, 0.0)
        run.tick(observer)
    before = run.images[True]
    run.images[True] = run.images[True] + 0.5
    run.state.phase = "stable"
    run.state.fading = False
    observer.after_fade(run, LARGE)
    run.step(observer, 0.0)
    run.tick(observer)
    growth, fade_end = run.rows()
    assert growth["event"] == "growth"
    assert (fade_end["event"], fade_end["at"], fade_end["from"], fade_end["size"]) == ("fade_end", 80, "8x8", "8x8")
    assert fade_end["Transition/rms/ema"] == pytest.approx(float((run.images[True] - before).square().mean().sqrt()))
    assert fade_end["Transition/rms/generator"] == 0
    assert fade_end["alpha"] == 1


def test_open_rows_are_saved_in_a_checkpoint(run: Scripted, tmp_path: Path) -> None:
    """Saved between the switch and the next tick, and resumed: the same rows."""
    observer = TransitionShock(count=2, steps=3)
    pass_growth(run, observer)
    run.step(observer, 20.0, 1.0)
    saved = observer.save_state()
    here = run.state.images

    def finish_run(observer: TransitionShock) -> list[dict[str, Any]]:
        run.state.images = here
        for loss in (30.0, 40.0, 50.0):
            run.step(observer, loss, 1.0)
        run.tick(observer, FID=50.0, FID_floor=4.0)
        run.tick(observer, FID=12.0, FID_floor=4.0)
        return run.rows()

    # Without a stop, and after one.
    whole = finish_run(observer)
    assert len(whole) == 2
    assert whole[0]["Transition/Loss/generator/after"] == 30
    resumed = TransitionShock(count=2, steps=3)
    run.resumed = True
    run.state.images = here
    resumed.before_run(run)
    assert run.rows() == []
    resumed.before_stage(run, LARGE, run.state, continues=True)
    resumed.load_state(run, saved)
    assert finish_run(resumed) == whole


def test_helpers_against_numbers_by_hand() -> None:
    steps = [(("a", "b"), torch.tensor([1.0, 4.0])), (("a",), torch.tensor([2.0]))]
    assert average_steps(steps) == {"a": 1.5, "b": 4.0}
    assert average_steps([]) == {}
    assert measure_feature_jump(torch.ones(3, 2), torch.zeros(3, 2)) is None
    nets = {"generator": nn.Linear(2, 2), "discriminator": nn.Linear(1, 1)}
    nets["generator"].weight.grad = torch.ones(2, 2)
    nets["generator"].bias.grad = torch.tensor([0.0, 2.0])
    assert {k: float(v) for k, v in measure_gradient_norms(SimpleNamespace(network=nets.__getitem__)).items()} == {
        "Gradient/generator": pytest.approx(math.sqrt(8))
    }


TINY_SHOCK = ("train.observers = [@observers.TransitionShock()]", "observers.TransitionShock.count = 4")


def read_switches(run: Any) -> list[tuple[str, int]]:
    rows = [json.loads(line) for line in (run.directory / "transitions.jsonl").read_text().splitlines()]
    return [(row["event"], row["at"]) for row in rows]


def test_in_training_a_soft_switch_does_not_jump_and_a_hard_one_does(train: Callable[..., Any]) -> None:
    soft = train(*TINY_SHOCK, run_dir="soft")
    hard = train(*TINY_SHOCK, "train.switch = @switches.Hard()", run_dir="hard")
    assert read_switches(soft) == [("growth", 8), ("fade_end", 16), ("growth", 24), ("fade_end", 32)]
    assert read_switches(hard) == [("growth", 8), ("growth", 24)]
    jumps = {}
    for run in (soft, hard):
        rows = [json.loads(line) for line in (run.directory / "transitions.jsonl").read_text().splitlines()]
        jumps[run] = [row["Transition/rms/generator"] for row in rows if row["event"] == "growth"]
        assert all("Transition/Gradient/generator/before" in row for row in rows)
        assert all("Transition/Loss/generator/hinge/after" in row for row in rows)
    assert max(jumps[soft]) < 1e-6 < min(jumps[hard])


class Interrupt:
    """A plugin that stops the run at a clock, before the tick there is saved."""

    def __init__(self, at: int) -> None:
        self.at = at

    @hookimpl
    def after_tick(self, run: Any) -> None:
        if run.state.images == self.at:
            raise KeyboardInterrupt


def test_a_resumed_run_writes_the_same_file(train: Callable[..., Any], stub: str) -> None:
    """Interrupted between the rows of a tick and its checkpoint."""
    whole = (train(*TINY_SHOCK, run_dir="whole").directory / "transitions.jsonl").read_text()
    for at in (16, 24, 32):
        with pytest.raises(KeyboardInterrupt):
            train(*TINY_SHOCK, plugins=(Interrupt(at),), run_dir=f"cut{at}")
        resumed = resume(f"cut{at}", plugins=[stub])
        assert (resumed.directory / "transitions.jsonl").read_text() == whole, at


def test_rows_that_could_not_be_written_are_written_at_the_next_tick(run: Scripted, tmp_path: Path) -> None:
    """And after a resume in between: they are in the checkpoint."""
    observer = TransitionShock(count=2)
    pass_growth(run, observer)
    (tmp_path / "transitions.jsonl").mkdir()
    run.step(observer, 20.0)
    for _ in range(2):
        with pytest.raises(TrainingError, match=r"cannot write .*transitions\.jsonl"):
            run.tick(observer, FID=50.0, FID_floor=4.0)
    saved = observer.save_state()
    (tmp_path / "transitions.jsonl").rmdir()
    observer.after_run()
    (row,) = run.rows()
    assert (row["images"], row["event"], row["Transition/Loss/generator/after"]) == (44, "growth", 20)

    # A run that goes back after a NaN has them still, and a branch has a file of its own.
    observer.load_state(run, saved)
    assert len(observer.save_state()["unwritten"]) == 1
    run.is_new_branch = True
    observer.load_state(run, saved)
    assert observer.save_state()["unwritten"] == []
    run.is_new_branch = False

    (tmp_path / "transitions.jsonl").unlink()
    resumed = TransitionShock(count=2)
    run.resumed = True
    resumed.before_run(run)
    resumed.load_state(run, saved)
    run.step(resumed, 20.0)
    run.tick(resumed)
    assert run.rows() == [row]

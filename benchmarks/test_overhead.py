"""The cost of the framework around the update: in the whole demo, and in the pieces that each step runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.paths import ROOT

from pggan_kit import hookimpl
from pggan_kit.api.prepare import prepare
from pggan_kit.api.train import train
from pggan_kit.benchmarking.breakdown import measure_loop_overhead
from pggan_kit.benchmarking.plan import plan
from pggan_kit.benchmarking.rig import Rig
from pggan_kit.data.resizing import resize_to_all
from pggan_kit.runs.checkpoints import Checkpoints
from pggan_kit.training.step import UpdateContext

HERE = Path(__file__).parent
LADDER = HERE / "ladder.gin"
DEMO = ROOT / "experiments" / "demo.gin"
SIZES = ["schedule.sizes = (4, 8, 16, 32)"]


class Listener:
    """An observer of a run's result."""

    def __init__(self) -> None:
        self.result: dict[str, Any] = {}

    @hookimpl
    def after_run(self, result: dict[str, Any]) -> None:
        self.result = result


def test_share_outside_the_update(tmp_path: Path) -> None:
    """Hooks, data, logging, progress, grids and checkpoints take at most 3 % of the whole demo."""
    listener = Listener()
    train(DEMO, run_dir=tmp_path / "run", plugins=[listener])
    share = 1 - listener.result["update_seconds"] / listener.result["seconds"]
    print(f"\noutside the update: {share:.2%} of {listener.result['seconds']:.0f} s")
    assert share <= 0.03


def test_share_around_the_step() -> None:
    """From 16 pixels up, hooks and ticks take less than 1 % of the yardstick's time."""
    print()
    for row in plan(LADDER, SIZES, [str(HERE / "noise.py")]):
        prepared = prepare(LADDER, SIZES, [str(HERE / "noise.py")])
        rig = Rig(prepared, prepared.schedule(), row["stage"], fading=row["fade_images"] > 0, compiles=False)
        rig.step()
        step = row["batch_size"] / row["images_per_second"]
        outside = row["outside_share"] * row["hours"] * 3600 / row["steps"]
        around = measure_loop_overhead(rig) + outside
        print(f"{row['size']}: {around / (step + around):.2%} of {1000 * step:.0f} ms are outside the update")
        assert row["stage"] < 2 or around / (step + around) < 0.01


def test_hook_call(benchmark: Any) -> None:
    """Ask for alpha, as each step of a fade does three times."""
    prepared = prepare(DEMO)
    hooks = prepared.hooks()
    state = prepared.state(prepared.schedule())
    benchmark(hooks.ask, "fade_alpha", stage=state.stage, progress=0.5, images=0, path="generator")


def test_schedule(benchmark: Any) -> None:
    """Look up the clock's position."""
    schedule = prepare(DEMO).schedule()
    benchmark(schedule.at, 100_000, schedule.planned_starts())


def test_data(benchmark: Any) -> None:
    """Draw a batch of reals at full size, on the device."""
    prepared = prepare(DEMO)
    schedule = prepared.schedule()
    state = prepared.state(schedule)
    sampler = prepared.data(schedule).sampler(schedule.stages[-1])
    benchmark(lambda: UpdateContext(prepared.built.experiment, state, schedule.stages[-1], sampler, {}).reals())


def test_sampler(benchmark: Any) -> None:
    """Read the rows of a batch, from memory."""
    prepared = prepare(DEMO)
    schedule = prepared.schedule()
    sampler = prepared.data(schedule).sampler(schedule.stages[-1])
    benchmark(sampler.batch, 640, 64)


@pytest.mark.parametrize("way", ["pyramid", "resizing on the fly"])
def test_data_path(benchmark: Any, way: str) -> None:
    """Bring 32 colour images of 128x128 into a batch of 32x32: with the pyramid, and without it."""
    prepared = prepare(LADDER, ["schedule.sizes = (32, 64, 128)"], [str(HERE / "noise.py")])
    schedule = prepared.schedule()
    dataset = prepared.built.experiment.dataset
    if way == "pyramid":
        benchmark(prepared.data(schedule).sampler(schedule.stages[0]).batch, 0, 32)
        return
    images = [dataset.image(i) for i in range(32)]
    benchmark(lambda: [list(resize_to_all(image, [(32, 32)], "area")) for image in images])


def test_latents(benchmark: Any, demo: Any) -> None:
    """Draw a batch of latents."""
    rig = demo(0)
    ctx = UpdateContext(rig.experiment, rig.state, rig.stage, rig.sampler, {})
    benchmark(ctx.latents, "generator")


def test_checkpoint(benchmark: Any, tmp_path: Path) -> None:
    """Write the demo's state: serialise, hash, fsync, rename, manifest."""
    prepared = prepare(DEMO)
    state = prepared.state(prepared.schedule())
    checkpoints = Checkpoints(tmp_path, keep=2)
    counter = iter(range(10_000))
    benchmark.pedantic(lambda: checkpoints.save(replace(state.take_snapshot(), images=next(counter))), rounds=20)

"""What the framework costs around the update: the whole demo, and the pieces that each step pays for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import DEMO, HERE, LADDER
from PIL import Image

from pggan_kit import hookimpl
from pggan_kit.api.prepare import prepare
from pggan_kit.api.train import train
from pggan_kit.benchmarking.breakdown import seconds_around
from pggan_kit.benchmarking.plan import plan
from pggan_kit.benchmarking.rig import Rig
from pggan_kit.data.pyramid import resize
from pggan_kit.runs.checkpoints import Checkpoints
from pggan_kit.training.step import TrainingStep

OVERHEAD = ["schedule.sizes = (4, 8, 16, 32)"]


class Listener:
    """Remembers what a run took in all."""

    def __init__(self) -> None:
        self.result: dict[str, Any] = {}

    @hookimpl
    def after_run(self, result: dict[str, Any]) -> None:
        self.result = result


def test_share_outside_the_update(tmp_path: Path) -> None:
    """Hooks, data, logging, progress, grids and checkpoints, summed over the whole demo."""
    listener = Listener()
    train(DEMO, run_dir=tmp_path / "run", plugins=[listener])
    share = 1 - listener.result["update_seconds"] / listener.result["seconds"]
    print(f"\noutside the update: {share:.2%} of {listener.result['seconds']:.0f} s")
    assert share <= 0.03


def test_share_around_the_step() -> None:
    """Of the yardstick from 16 pixels up: what the loop asks and tells at each step, and does at ticks."""
    print()
    for row in plan(LADDER, OVERHEAD, [str(HERE / "noise.py")]):
        prepared = prepare(LADDER, OVERHEAD, [str(HERE / "noise.py")])
        tick = prepared.built.experiment.tick
        rig = Rig(prepared, prepared.schedule(), row["stage"], fading=row["fade_images"] > 0, compiles=False)
        rig.step()
        step = row["batch_size"] / row["images_per_second"]
        around = seconds_around(rig) + row["tick_seconds"] * row["batch_size"] / tick
        print(f"{row['size']}: {around / (step + around):.2%} of {1000 * step:.0f} ms are outside the update")
        assert row["stage"] < 2 or around / (step + around) < 0.01


def test_hook_call(benchmark: Any) -> None:
    """The question for alpha, which each step of a fade asks three times."""
    prepared = prepare(DEMO)
    hooks, state = prepared.hooks(), prepared.state(prepared.schedule())
    benchmark(hooks.ask, "fade_alpha", stage=state.stage, progress=0.5, images=0, path="generator")


def test_schedule(benchmark: Any) -> None:
    """Where the clock stands."""
    schedule = prepare(DEMO).schedule()
    benchmark(schedule.at, 100_000, schedule.planned_starts())


def test_data(benchmark: Any) -> None:
    """A batch of reals at full size, on the device."""
    prepared = prepare(DEMO)
    schedule = prepared.schedule()
    state = prepared.state(schedule)
    sampler = prepared.data(schedule).sampler(schedule.stages[-1])
    benchmark(lambda: TrainingStep(prepared.built.experiment, state, schedule.stages[-1], sampler, {}).reals())


def test_sampler(benchmark: Any) -> None:
    """The rows of a batch, from memory."""
    prepared = prepare(DEMO)
    schedule = prepared.schedule()
    sampler = prepared.data(schedule).sampler(schedule.stages[-1])
    benchmark(sampler.batch, 640, 64)


@pytest.mark.parametrize("way", ["pyramid", "resizing on the fly"])
def test_data_path(benchmark: Any, way: str) -> None:
    """32 colour images of 128x128 as a batch of 32x32: rows of the pyramid, and what there would be without it."""
    bindings, plugins = ["schedule.sizes = (32, 64, 128)"], [str(HERE / "noise.py")]
    prepared = prepare(LADDER, bindings, plugins)
    schedule, dataset = prepared.schedule(), prepared.built.experiment.dataset
    if way == "pyramid":
        benchmark(prepared.data(schedule).sampler(schedule.stages[0]).batch, 0, 32)
        return
    images = [dataset.image(i) for i in range(32)]
    benchmark(lambda: np.stack([resize(Image.fromarray(image), (32, 32), "area") for image in images]))


def test_latents(benchmark: Any, demo: Any) -> None:
    """A batch of latents."""
    rig = demo(0)
    ctx = TrainingStep(rig.experiment, rig.state, rig.stage, rig.sampler, {})
    benchmark(ctx.latents, "generator")


def test_checkpoint(benchmark: Any, tmp_path: Path) -> None:
    """Writing the demo's state: serialise, hash, fsync, rename, manifest."""
    prepared = prepare(DEMO)
    state = prepared.state(prepared.schedule())
    checkpoints = Checkpoints(tmp_path, keep=2)
    counter = iter(range(10_000))
    benchmark.pedantic(lambda: checkpoints.save(replace(state.take_snapshot(), images=next(counter))), rounds=20)

"""What the framework costs around the update: the whole demo, and the pieces that each step pays for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pggan_kit import hookimpl
from pggan_kit.api import prepare, train
from pggan_kit.checkpoint import Checkpoints
from pggan_kit.planning import Noise
from pggan_kit.steps import StepContext

DEMO = Path(__file__).parent.parent / "experiments" / "mnist.gin"


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
    benchmark(lambda: StepContext(prepared.built.experiment, state, schedule.stages[-1], sampler, {}).reals())


def test_sampler(benchmark: Any) -> None:
    """The rows of a batch, from memory."""
    prepared = prepare(DEMO)
    schedule = prepared.schedule()
    sampler = prepared.data(schedule).sampler(schedule.stages[-1])
    benchmark(sampler.batch, 640, 64)


def test_latents(benchmark: Any) -> None:
    """A batch of latents."""
    prepared = prepare(DEMO)
    schedule = prepared.schedule()
    state = prepared.state(schedule)
    ctx = StepContext(prepared.built.experiment, state, state.stage, Noise(state.stage), {})
    benchmark(ctx.latents, "generator")


def test_checkpoint(benchmark: Any, tmp_path: Path) -> None:
    """Writing the demo's state: serialise, hash, fsync, rename, manifest."""
    prepared = prepare(DEMO)
    state = prepared.state(prepared.schedule())
    checkpoints = Checkpoints(tmp_path, keep=2)
    counter = iter(range(10_000))
    benchmark.pedantic(lambda: checkpoints.save(state.state_dict(), next(counter)), rounds=20)

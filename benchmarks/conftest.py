"""Benchmarks run the parts of shipped experiments; what they print is for reading, and only shares are asserted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pggan_kit.api import prepare
from pggan_kit.planning import Noise
from pggan_kit.state import TrainState
from pggan_kit.steps import StepContext

DEMO = Path(__file__).parent.parent / "experiments" / "mnist.gin"


@pytest.fixture
def demo_step() -> Callable[[int, float | None], Callable[[], None]]:
    """`demo_step(stage, alpha)`: one iteration of the demo at a stage, mid-fade where alpha is given."""

    def make(index: int, alpha: float | None) -> Callable[[], None]:
        prepared = prepare(DEMO)
        schedule = prepared.schedule()
        state: TrainState = prepared.state(schedule)
        for stage in range(1, index + 1):
            bridged = alpha is not None and stage == index
            state.grow({"generator": bridged, "discriminator": bridged})
        state.renew_optimizers(reset=True)
        paths = ("generator", "discriminator", "reals") if alpha is not None else ()
        alphas = {path: torch.tensor(alpha) for path in paths}
        noise = Noise(state.stage)

        def step() -> None:
            ctx = StepContext(prepared.built.experiment, state, state.stage, noise, alphas)
            prepared.built.experiment.update.step(ctx)
            state.images += ctx.drawn
            state.follow()

        return step

    return make

"""Benchmarks run the parts of shipped experiments; what they print is for reading, and only shares are asserted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pggan_kit.api.prepare import prepare
from pggan_kit.benchmarking.rig import Rig

HERE = Path(__file__).parent
DEMO = HERE.parent / "experiments" / "mnist.gin"
LADDER = HERE / "ladder.gin"


@pytest.fixture
def demo() -> Callable[..., Rig]:
    """`demo(index, fading=False)`: the demo at a stage."""

    def make(index: int, fading: bool = False) -> Rig:
        prepared = prepare(DEMO)
        return Rig(prepared, prepared.schedule(), index, fading)

    return make

"""One iteration of the demo (D with its penalty when due, G, the average) at each stage, steady and mid-fade."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

CASES = [(0, False), (1, False), (1, True), (2, False), (2, True)]


@pytest.mark.parametrize(("stage", "fading"), CASES, ids=["7x7", "14x14", "14x14 fading", "28x28", "28x28 fading"])
def test_step(benchmark: Any, demo: Any, stage: int, fading: bool) -> None:
    rig = demo(stage, fading)
    updates = itertools.count()
    # 16 iterations a round: two periods of the demo's lazy penalty.
    benchmark.pedantic(lambda: rig.step(next(updates)), warmup_rounds=1, rounds=6, iterations=16)

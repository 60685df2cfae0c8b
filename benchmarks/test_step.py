"""One iteration of the demo (D with its penalty when due, G, the average) at each stage, steady and mid-fade."""

from __future__ import annotations

from typing import Any

import pytest

CASES = [(0, None), (1, None), (1, 0.5), (2, None), (2, 0.5)]


@pytest.mark.parametrize(("stage", "alpha"), CASES, ids=["7x7", "14x14", "14x14 fading", "28x28", "28x28 fading"])
def test_step(benchmark: Any, demo_step: Any, stage: int, alpha: float | None) -> None:
    # 16 iterations a round: one period of the demo's lazy penalty.
    benchmark.pedantic(demo_step(stage, alpha), warmup_rounds=1, rounds=6, iterations=16)

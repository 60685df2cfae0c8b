"""Fixtures of the benchmarks, which run shipped experiments. Their output is for reading; only shares are asserted."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from helpers.paths import ROOT

from pggan_kit.api.prepare import prepare
from pggan_kit.benchmarking.rig import Rig


@pytest.fixture
def demo() -> Callable[..., Rig]:
    """Return `demo(index, fading=False)`, which builds the demo at a stage."""

    def build_rig(index: int, fading: bool = False) -> Rig:
        prepared = prepare(ROOT / "experiments" / "demo.gin")
        return Rig(prepared, prepared.schedule(), index, fading)

    return build_rig

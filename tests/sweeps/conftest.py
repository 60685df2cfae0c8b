"""What tests of sweeps share: a sweep of the tiny experiment that runs in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.gin_text import bind_again
from helpers.sweep_files import PLUGINS, SWEEP, TWO_STAGES


@pytest.fixture
def sweep(tiny: Callable[..., str]) -> Callable[..., dict[str, Any]]:
    """`sweep("sweep.trials = 2", out="out")` sweeps the tiny experiment, of two stages, in this process."""
    from pggan_kit import sweeps

    tiny(TWO_STAGES)

    def run(*lines: str, out: str = "out", said: list[str] | None = None) -> dict[str, Any]:
        Path("sweep.gin").write_text(bind_again(SWEEP, lines))
        spoken: list[str] = [] if said is None else said
        return sweeps.sweep("sweep.gin", out=out, plugins=PLUGINS, say=spoken.append)

    return run

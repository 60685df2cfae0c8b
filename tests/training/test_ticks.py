"""Test the ticks before the first whole one: places on the clock, whatever stops a run in between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from helpers.killing import StopAt
from helpers.paths import STUB_PLUGIN

from pggan_kit.api.train import resume
from pggan_kit.errors import Interrupted


def test_early_ticks_are_places_on_the_clock_also_after_a_resume(train: Callable[..., Any]) -> None:
    """A quarter and half of a tick of 64 images: an eighth is less than four batches."""
    lines = ["schedule.sizes = (4,)", "schedule.stable_images = 136", "train.tick = 64"]
    ticks = [16, 32, 64, 128, 136]
    assert train(*lines, run_dir="whole").stats.column("images") == ticks

    # Stop at an early tick, and between two of them.
    for images in (16, 24):
        folder = f"stopped at {images}"
        with pytest.raises(Interrupted):
            train(*lines, run_dir=folder, plugins=(StopAt(images),))
        assert resume(folder, plugins=[str(STUB_PLUGIN)]).stats.column("images") == ticks

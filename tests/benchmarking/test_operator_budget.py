"""Test that a step asks the device for no more operations than the same mathematics in plain PyTorch."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from pggan_kit.api.prepare import prepare
from pggan_kit.benchmarking.contenders import load_foreign, load_variants
from pggan_kit.benchmarking.flops import count_kinds, count_mean_calls
from pggan_kit.benchmarking.rig import Rig

ROOT = Path(__file__).parents[2] / "benchmarks"
NARROW = ["architectures.PGGAN.channels = 4", "train.latent_size = 4", "schedule.batch_size = 4"]
"""How many operations there are does not depend on the widths."""

MOST = 1.2
"""Maximum ratio to the operations of the reference."""


@pytest.mark.parametrize(("index", "fading"), [(0, False), (2, False), (2, True), (4, True)])
def test_a_step_has_few_operations(index: int, fading: bool) -> None:
    config = ROOT / "ladder.gin"
    plugins = [str(ROOT / "noise.py")]
    prepared = prepare(config, NARROW, plugins)
    schedule = prepared.schedule()
    ours = count_mean_calls(functools.partial(Rig, prepared, schedule, index, fading, compiles=False))

    (variant,) = load_variants(config, NARROW, plugins, {})
    reference = load_foreign(f"{ROOT / 'reference.py'}:make")
    device = variant.prepared.state(schedule).device
    step, _ = reference.build(variant, schedule.stages[index], fading, device)
    step()
    theirs = count_kinds([(1.0, step)])
    assert 0 < ours.operators <= MOST * theirs.operators

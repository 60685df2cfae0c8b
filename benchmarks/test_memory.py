"""Memory over two thousand steps and three transitions: resident memory at ticks, and its slope in each stage."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.paths import STUB_PLUGIN

from pggan_kit import hookimpl
from pggan_kit.api.train import train

STEPS_A_STAGE = 520
BATCH = 4
MAX_MIB_PER_THOUSAND_STEPS = 4.0
"""Maximum growth in the second half of a stage, where the allocator has settled, in MiB per 1,000 steps."""

CONFIG = f"""\
schedule.sizes = (4, 8, 16, 32)
schedule.fade_images = {BATCH * STEPS_A_STAGE // 4}
schedule.stable_images = {BATCH * STEPS_A_STAGE}
schedule.batch_size = {BATCH}
train.architecture = @architectures.PGGAN()
architectures.PGGAN.channels = 8
train.resampling = @resampling.Nearest()
train.loss = @losses.NonSaturating()
losses.NonSaturating.penalties = [@penalties.R1()]
train.update = @updates.Alternating()
train.dataset = @datasets.Stub()
datasets.Stub.height = 32
datasets.Stub.width = 32
train.generator_optimizer = @g/optimizers.Adam()
train.discriminator_optimizer = @d/optimizers.Adam()
train.latent_size = 16
train.tick = {BATCH * 20}
train.observers = [@observers.TensorBoard(), @observers.Samples(), @observers.Growth()]
observers.TensorBoard.count = 4
observers.Samples.count = 4
observers.Growth.count = 4
"""


class Memory:
    """An observer of memory at each tick.

    Attributes:
        rows: Tuples (stage, step, resident MiB, MiB on the GPU).
    """

    def __init__(self) -> None:
        self.rows: list[tuple[int, int, float, float]] = []

    @hookimpl
    def after_tick(self, run: Any, stage: Any, state: Any) -> None:
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        gpu = 0.0
        if run.device.type == "cuda":
            gpu = torch.cuda.memory_allocated(run.device) / 2**20
        self.rows.append((stage.index, state.steps, pages * 4096 / 2**20, gpu))


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
def test_memory(tmp_path: Path, monkeypatch: Any) -> None:
    """Print each stage's memory; the resident memory of a stage that has settled does not grow."""
    monkeypatch.setenv("PGGAN_KIT_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "memory.gin"
    file.write_text(CONFIG)
    memory = Memory()
    run = train(file, run_dir=tmp_path / "run", plugins=[str(STUB_PLUGIN), memory])
    assert run.state.steps > 2000
    assert len(run.state.starts) == 4

    print()
    for stage in run.schedule.stages:
        # A line through the second half: the first half is still filling caches.
        rows = np.array([row[1:] for row in memory.rows if row[0] == stage.index])
        settled = rows[len(rows) // 2 :]
        slope = 1000 * np.polyfit(settled[:, 0], settled[:, 1], 1)[0]
        line = (
            f"{stage.size}: {rows[0, 1]:.1f} MiB at its first tick, {rows[-1, 1]:.1f} at its last; {slope:+.2f} MiB in "
            "1000 steps of its second half"
        )
        if settled[-1, 2]:
            line += f", {settled[0, 2]:.1f} to {settled[-1, 2]:.1f} MiB on the GPU"
        print(line)
        assert slope < MAX_MIB_PER_THOUSAND_STEPS
        assert settled[-1, 2] <= settled[0, 2]

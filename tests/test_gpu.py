"""Test what only a GPU can show. Without one these tests are skipped; their logic is tested on a CPU elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import STUB
from helpers.killing import last, rows
from helpers.slow_writing import SlowWriting, write_at_once

from pggan_kit import hookimpl
from pggan_kit.api.train import resume
from pggan_kit.data.device_feed import PrefetchFeed, ResidentFeed, SideStream
from pggan_kit.data.pyramid import Level
from pggan_kit.data.sampler import Sampler
from pggan_kit.errors import Interrupted, TrainingError
from pggan_kit.runs.directory import RunDirectory
from pggan_kit.runs.host_copies import PlainCopier, choose_copier
from pggan_kit.testing.support import are_equal
from pggan_kit.training import loop
from pggan_kit.training.loop import Loop

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]

ON_GPU = ["train.device = 'cuda'", "losses.Hinge.penalties = [@penalties.R1()]"]
PRECISIONS = ["float32", "bfloat16", "float16"]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("memory", [0, 100], ids=["copied ahead", "resident"])
def test_no_step_waits(precision: str, memory: int, train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let CUDA itself raise where a step makes the host wait."""

    def forbid_waiting(method: Any) -> Any:
        def call(*args: Any) -> Any:
            before = torch.cuda.get_sync_debug_mode()
            torch.cuda.set_sync_debug_mode("error")
            try:
                return method(*args)
            finally:
                torch.cuda.set_sync_debug_mode(before)

        return call

    monkeypatch.setattr(Loop, "take_step", forbid_waiting(Loop.take_step))
    run = train(f"train.precision = '{precision}'", f"data.device_memory = {memory}", *ON_GPU)
    assert run.state.images == 40
    assert run.device.type == "cuda"
    assert all(bool(value.isfinite().all()) for value in run.state.generator.state_dict().values())


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_resumed_run_ends_as_one_that_never_stopped(precision: str, train: Callable[..., Any]) -> None:
    class Stop:
        @hookimpl
        def after_step(self, run: Any, state: Any) -> None:
            if state.images == 12 and not run.resumed:
                run.experiment.time_limit = 1e-9

    lines = [f"train.precision = '{precision}'", "train.deterministic = 'warn'", *ON_GPU]
    with pytest.raises(Interrupted):
        train(*lines, run_dir="run", plugins=(Stop(),))
    resume("run", plugins=[STUB])
    train(*lines, run_dir="whole")
    resumed = last(Path("run"))
    whole = last(Path("whole"))
    for key in ("generator", "discriminator", "averages", "scalers", "images"):
        assert are_equal(resumed[key], whole[key]), key
    assert rows(Path("run")) == rows(Path("whole"))


def test_a_copy_is_as_of_its_place_in_the_queue_and_nothing_waits() -> None:
    """Change a tensor before and after its copy is begun, while the device has much to do."""
    device = torch.device("cuda")
    copier = choose_copier(device)
    work = torch.randn(4096, 4096, device=device) / 64
    weights = torch.zeros(1000, 1000, device=device)
    images = torch.zeros(8, 16, 32, 32, device=device).to(memory_format=torch.channels_last)
    copier.begin(weights)  # the first pinned block is made by the driver, which may wait
    copier.begin(images)
    copier.mark()()

    torch.cuda.synchronize()
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(50):
            work = work @ work
        done = torch.cuda.Event()
        weights += 1
        images += 2
        copies = [copier.begin(weights), copier.begin(images)]
        wait = copier.mark()
        done.record()
        goes_on = not done.query()
        weights += 1
        images += 2
    finally:
        torch.cuda.set_sync_debug_mode(before)
    assert goes_on, "the device was done before the copies were begun: give it more to do"
    assert all(copy.is_pinned() for copy in copies)
    assert copies[1].stride() == images.stride()
    wait()
    assert [float(copy.unique()) for copy in copies] == [1.0, 2.0]
    assert [float(tensor.unique()) for tensor in (weights, images)] == [2.0, 4.0]


def test_checkpoints_that_are_written_while_steps_go_on_equal_those_written_at_once(
    train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ["train.deterministic = 'warn'", "train.keep = 100", "schedule.stable_images = 40", "train.tick = 20"]
    with monkeypatch.context() as patch:
        write_at_once(patch)
        patch.setattr(loop, "choose_copier", lambda device: PlainCopier())
        train(*ON_GPU, *lines, run_dir="whole")
    slow = SlowWriting(monkeypatch)
    train(*ON_GPU, *lines, run_dir="run", plugins=(slow,))
    assert "wait" in slow.events

    contents = []
    for run in ("run", "whole"):
        checkpoints = RunDirectory(Path(run)).checkpoints()
        contents.append([checkpoints.load(entry).content() for entry in checkpoints.read_entries()])
    assert len(contents[0]) == len(contents[1]) >= 8
    assert all(are_equal(ours, theirs) for ours, theirs in zip(*contents, strict=True))


def test_precisions_agree(train: Callable[..., Any]) -> None:
    """Compare the losses of the first tick, of the same weights and images, up to rounding."""
    losses = {}
    for precision in PRECISIONS:
        run = train(f"train.precision = '{precision}'", "optimizers.Adam.lr = 1e-9", *ON_GPU, run_dir=precision)
        losses[precision] = rows(run.directory)[0]["Loss/discriminator/hinge"]
    for precision in PRECISIONS:
        assert losses[precision] == pytest.approx(losses["float32"], rel=0.05)


def test_a_failure_is_found_at_the_tick_and_named(train: Callable[..., Any]) -> None:
    """Read the flag on the device before anything is written; then take the tick's steps again, checked."""

    class Poison:
        @hookimpl
        def after_step(self, state: Any) -> None:
            if state.images == 12:
                with torch.no_grad():
                    next(state.discriminator.parameters()).fill_(math.nan)

    with pytest.raises(TrainingError, match=r"became non-finite at images 12 "):
        train(*ON_GPU, "train.tick = 20", run_dir="run", plugins=(Poison(),))


@pytest.mark.parametrize("labels", [None, "labels"])
@pytest.mark.parametrize("way", [ResidentFeed, lambda source, device: PrefetchFeed(source, SideStream(device))])
def test_batches_are_the_sampler_s(way: Any, labels: str | None) -> None:
    """Do work between batches that would show a memory block reused too early."""
    images = np.random.default_rng(0).integers(0, 256, (50, 3, 32, 32), np.uint8)
    level = Level(images, np.arange(50) if labels else None)
    device = torch.device("cuda")
    fed = way(Sampler(level, 0, mirror=True), device)
    plain = Sampler(level, 0, mirror=True)
    sums = []
    for position in range(0, 640, 16):
        batch, its_labels = fed.batch(position, 16)
        torch.randn(512, 512, device=device) @ torch.randn(512, 512, device=device)
        sums.append((batch.long().sum((1, 2, 3)), its_labels))
    for position, (sums_of_batch, labels_of_batch) in zip(range(0, 640, 16), sums, strict=True):
        wanted, wanted_labels = plain.batch(position, 16)
        assert torch.equal(sums_of_batch.cpu(), wanted.long().sum((1, 2, 3)))
        assert (labels_of_batch is None) == (wanted_labels is None)
        assert labels_of_batch is None or torch.equal(labels_of_batch.cpu(), wanted_labels)

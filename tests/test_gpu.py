"""Test what only a GPU can show. Without one these tests are skipped; their logic is tested on a CPU elsewhere."""

from __future__ import annotations

import gc
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import STUB
from helpers.captured_runs import CASES, LONG, assert_same_runs, bind_case, read_log
from helpers.killing import last, rows
from helpers.slow_writing import SlowWriting, write_at_once

from pggan_kit import Component, Trial, hookimpl
from pggan_kit.ablation.conduct import PREPARATION
from pggan_kit.api.train import resume
from pggan_kit.benchmarking.bench import bench
from pggan_kit.benchmarking.plan import plan
from pggan_kit.data.device_feed import PrefetchFeed, ResidentFeed, SideStream
from pggan_kit.data.pyramid import Level
from pggan_kit.data.sampler import Sampler
from pggan_kit.errors import Interrupted, TrainingError
from pggan_kit.runs.directory import RunDirectory
from pggan_kit.runs.host_copies import PlainCopier, choose_copier
from pggan_kit.testing.support import are_equal
from pggan_kit.training import loop
from pggan_kit.training.loop import Loop
from pggan_plugins.launchers import Local
from pggan_plugins.losses import Hinge

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

    # The driver may wait where a pinned block is first made, and where a kernel is first launched.
    work = work @ work
    weights += 0
    images += 0
    copier.begin(weights)
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


@pytest.mark.parametrize("case", CASES)
def test_a_captured_run_equals_an_eager_one(case: str, train: Callable[..., Any]) -> None:
    lines, base = bind_case(case)
    lines += ["train.device = 'cuda'", "train.deterministic = 'warn'"]
    if case == "copied ahead":
        lines.append("data.device_memory = 0")
    train(*lines, "train.capture = 'never'", run_dir="eager", base=base)
    train(*lines, run_dir="captured", base=base)
    assert_same_runs("captured", "eager")
    assert "not captured" not in read_log("captured")
    assert read_log("captured").count("are captured") >= 3


class WaitingHinge(Hinge):
    """A loss that makes the host wait for a value of each step."""

    def generator(self, fake: Any, real: Any) -> dict[str, torch.Tensor]:
        float(fake.score.detach().sum())
        return super().generator(fake, real)


WAITING = Component("losses", "Waiting", WaitingHinge)


@pytest.mark.parametrize("noise", [False, True], ids=["plain", "noise"])
def test_a_step_that_waits_goes_on_eagerly(noise: bool, train: Callable[..., Any]) -> None:
    """Let a recording fail in the middle, after random numbers were drawn in it."""

    lines = [*LONG, "train.device = 'cuda'", "train.deterministic = 'warn'", "train.loss = @losses.Waiting()"]
    if noise:
        lines.append("train.augmentation = @augmentations.Noise()")
    train(*lines, "train.capture = 'never'", run_dir="eager", plugins=(WAITING,))
    train(*lines, run_dir="captured", plugins=(WAITING,))
    assert_same_runs("captured", "eager")
    assert read_log("captured").count("not captured") == 3


def test_growth_frees_what_graphs_held(train: Callable[..., Any]) -> None:
    """Compare memory before each stage and after each step: graphs of one stage leave nothing in the next."""
    allocated: dict[str, list[int]] = {}

    class Watch:
        @hookimpl
        def before_stage(self, run: Any) -> None:
            gc.collect()
            allocated.setdefault(run.files.path.name, []).append(torch.cuda.memory_allocated())

    train(*LONG, "train.device = 'cuda'", "train.capture = 'never'", run_dir="eager", plugins=(Watch(),))
    train(*LONG, "train.device = 'cuda'", run_dir="captured", plugins=(Watch(),))
    assert allocated["captured"][1] <= allocated["eager"][1] + 2**20


def test_a_captured_run_is_resumed_bit_for_bit(train: Callable[..., Any]) -> None:
    class Stop:
        @hookimpl
        def after_step(self, run: Any, state: Any) -> None:
            if state.images == 72 and not run.resumed:
                run.experiment.time_limit = 1e-9

    lines = [*LONG, *CASES["a rate that moves"], "train.device = 'cuda'", "train.deterministic = 'warn'"]
    with pytest.raises(Interrupted):
        train(*lines, run_dir="run", plugins=(Stop(),))
    resume("run", plugins=[STUB])
    train(*lines, run_dir="whole")
    assert_same_runs("run", "whole")


@pytest.mark.parametrize("setting", ["auto", "never"])
@pytest.mark.parametrize("case", ["path length", "lazy R1 whose weight moves", "flipped", "copied ahead"])
def test_nothing_is_copied_from_pageable_memory(setting: str, case: str, train: Callable[..., Any]) -> None:
    """Let the profiler name the copies of steps; those from pageable memory make the host wait, unseen by all else."""
    copies: list[str] = []

    class Profile:
        @hookimpl
        def before_run(self) -> None:
            self.profiler: Any = None

        @hookimpl
        def after_step(self, state: Any) -> None:
            # The steps after a tick and before the next, which copies what it likes; no stage ends among them.
            if state.images in (24, 44, 84, 104):
                self.profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA])
                self.profiler.__enter__()
            elif self.profiler is not None and state.images % 20 == 16:
                torch.cuda.synchronize()
                self.profiler.__exit__(None, None, None)
                copies.extend(event.name for event in self.profiler.events() if "Memcpy HtoD" in event.name)
                self.profiler = None

    lines, base = bind_case(case)
    if case == "copied ahead":
        lines.append("data.device_memory = 0")
    train(*lines, "train.device = 'cuda'", f"train.capture = '{setting}'", base=base, plugins=(Profile(),))
    assert copies
    assert not [name for name in copies if "Pageable" in name]


def test_compiled_passes_run_inside_captured_steps(train: Callable[..., Any]) -> None:
    lines = [
        "schedule.sizes = (4,)",
        "schedule.fade_images = 0",
        "schedule.stable_images = 40",
        "train.tick = 20",
        "train.device = 'cuda'",
        "train.compile = 'always'",
        "train.deterministic = 'warn'",
    ]
    train(*lines, run_dir="captured")
    assert read_log("captured").count("compiled the ") == 2
    assert "are captured" in read_log("captured")
    assert "not captured" not in read_log("captured")
    train(*lines, "train.capture = 'never'", run_dir="compiled")
    assert_same_runs("captured", "compiled")


def test_memory_is_freed_after_a_recording_that_failed(train: Callable[..., Any]) -> None:
    """Use blocks on two streams, whose events are looked at only while nothing is recorded."""

    train(*LONG, "train.device = 'cuda'", "train.loss = @losses.Waiting()", plugins=(WAITING,))
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    other = torch.cuda.Stream()
    for _ in range(20):
        block = torch.empty(2**24, dtype=torch.uint8, device="cuda")
        block.record_stream(other)
        del block
        torch.cuda.synchronize()
    assert torch.cuda.memory_reserved() - before <= 2**25


@pytest.fixture
def little_memory() -> Iterator[None]:
    """Leave this process 256 MiB more of the card than it has now."""
    gc.collect()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2**28) / total)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


LARGE = ["schedule.sizes = (16,)", "schedule.fade_images = 0", "schedule.batch_size = 4096"]
LARGE += ["architectures.PGGAN.channels = 128", "train.device = 'cuda'"]
"""A step that takes gigabytes."""


@pytest.mark.usefixtures("little_memory")
def test_running_out_of_memory_is_an_outcome(
    train: Callable[..., Any], tiny: Callable[..., str], stub: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TrainingError, match="micro_batch"):
        train(*LARGE, run_dir="run")
    (failure,) = bench(tiny(*LARGE), plugins=[stub])["failures"]
    assert failure["out_of_memory"]
    assert plan(tiny(*LARGE), plugins=[stub])


def test_trials_that_are_forks_use_the_gpu(tmp_path: Path) -> None:
    """A process that has used CUDA before a fork is of no use to CUDA after it: the preparation must not."""
    code = "import torch; print(float(torch.ones(3, device='cuda').sum()))"
    trials = [
        Trial(name, [sys.executable, "-c", code], tmp_path / f"{name}.log", tmp_path, PREPARATION) for name in "ab"
    ]
    assert Local(trials_per_gpu=2).launch(trials) == [0, 0]
    for trial in trials:
        assert trial.log is not None
        assert trial.log.read_text().split()[-1] == "3.0"

"""What only a GPU can show. Without one these tests are skipped; their logic is tested on a CPU elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import STUB
from helpers.killing import last, rows

from pggan_kit import hookimpl
from pggan_kit.api.train import resume
from pggan_kit.data.device_feed import Ahead, Resident, SideStream
from pggan_kit.data.pyramid import Level
from pggan_kit.data.sampler import Sampler
from pggan_kit.errors import Interrupted, TrainingError
from pggan_kit.testing.support import equal
from pggan_kit.training.loop import Loop

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]

ON_GPU = ["train.device = 'cuda'", "losses.Hinge.penalties = [@penalties.R1()]"]
PRECISIONS = ["float32", "bfloat16", "float16"]


@pytest.fixture
def deterministic() -> Iterator[None]:
    """Algorithms that give the same bits each time."""
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.deterministic = True
    yield
    torch.use_deterministic_algorithms(before[0])
    torch.backends.cudnn.deterministic = before[1]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("memory", [0, 100], ids=["copied ahead", "resident"])
def test_no_step_waits(precision: str, memory: int, train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA itself raises where a step makes the host wait."""

    def unwaiting(method: Any) -> Any:
        def call(*args: Any) -> Any:
            before = torch.cuda.get_sync_debug_mode()
            torch.cuda.set_sync_debug_mode("error")
            try:
                return method(*args)
            finally:
                torch.cuda.set_sync_debug_mode(before)

        return call

    monkeypatch.setattr(Loop, "step", unwaiting(Loop.step))
    run = train(f"train.precision = '{precision}'", f"data.device_memory = {memory}", *ON_GPU)
    assert run.state.images == 40 and run.device.type == "cuda"
    assert all(bool(value.isfinite().all()) for value in run.state.generator.state_dict().values())


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_resumed_run_ends_as_one_that_never_stopped(
    precision: str, train: Callable[..., Any], deterministic: None
) -> None:
    class Stop:
        @hookimpl
        def after_step(self, run: Any, state: Any) -> None:
            if state.images == 12 and not run.resumed:
                run.experiment.time_limit = 1e-9

    lines = [f"train.precision = '{precision}'", *ON_GPU]
    with pytest.raises(Interrupted):
        train(*lines, run_dir="run", plugins=(Stop(),))
    resume("run", plugins=[STUB])
    train(*lines, run_dir="whole")
    ours, theirs = last(Path("run")), last(Path("whole"))
    for key in ("generator", "discriminator", "ema", "scalers", "images"):
        assert equal(ours[key], theirs[key]), key
    assert rows(Path("run")) == rows(Path("whole"))


def test_precisions_agree(train: Callable[..., Any]) -> None:
    """The first tick's losses, of the same weights and images, to rounding."""
    losses = {}
    for precision in PRECISIONS:
        run = train(f"train.precision = '{precision}'", "optimizers.Adam.lr = 1e-9", *ON_GPU, run_dir=precision)
        losses[precision] = rows(run.directory)[0]["Loss/discriminator/hinge"]
    for precision in PRECISIONS:
        assert losses[precision] == pytest.approx(losses["float32"], rel=0.05)


def test_what_dies_is_found_at_the_tick_and_named(train: Callable[..., Any]) -> None:
    """The flag on the device is read before anything is written; then the tick's steps are taken again, checked."""

    class Poison:
        @hookimpl
        def after_step(self, state: Any) -> None:
            if state.images == 12:
                with torch.no_grad():
                    next(state.discriminator.parameters()).fill_(math.nan)

    with pytest.raises(TrainingError, match=r"became non-finite at images 12 "):
        train(*ON_GPU, "train.tick = 20", run_dir="run", plugins=(Poison(),))


@pytest.mark.parametrize("labels", [None, "labels"])
@pytest.mark.parametrize("way", [Resident, lambda source, device: Ahead(source, SideStream(device))])
def test_batches_are_the_sampler_s(way: Any, labels: str | None) -> None:
    """With work between them that would show a memory block given away too early."""
    images = np.random.default_rng(0).integers(0, 256, (50, 3, 32, 32), np.uint8)
    level = Level(images, np.arange(50) if labels else None)
    device = torch.device("cuda")
    fed, plain = way(Sampler(level, 0, mirror=True), device), Sampler(level, 0, mirror=True)
    sums = []
    for position in range(0, 640, 16):
        batch, its_labels = fed.batch(position, 16)
        torch.randn(512, 512, device=device) @ torch.randn(512, 512, device=device)
        sums.append((batch.long().sum((1, 2, 3)), its_labels))
    for position, (found, found_labels) in zip(range(0, 640, 16), sums, strict=True):
        wanted, wanted_labels = plain.batch(position, 16)
        assert torch.equal(found.cpu(), wanted.long().sum((1, 2, 3)))
        assert (found_labels is None) == (wanted_labels is None)
        assert found_labels is None or torch.equal(found_labels.cpu(), wanted_labels)

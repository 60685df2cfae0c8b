"""Test checkpoints that are written while the loop goes on: what they hold, who waits for them, and what fails."""

from __future__ import annotations

import errno
import os
import signal
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.forks import wait_until
from helpers.killing import StopAt, assert_same_run, in_a_child, last
from helpers.paths import STUB_PLUGIN
from helpers.patience import PATIENCE_SECONDS
from helpers.slow_writing import LaggingCopier, SlowWriting, write_at_once

from pggan_kit import Component, hookimpl, load_generator
from pggan_kit.api.train import resume
from pggan_kit.errors import Interrupted, TrainingError
from pggan_kit.runs import checkpoints
from pggan_kit.runs.checkpoints import Checkpoints
from pggan_kit.runs.directory import RunDirectory
from pggan_kit.runs.snapshot import Snapshot
from pggan_kit.system import background_writer
from pggan_kit.system.files import write_atomically
from pggan_kit.system.locks import RunLock
from pggan_kit.system.signals import StoppedAtOnce
from pggan_kit.training import loop, measures
from pggan_kit.training.non_finite import NonFiniteError
from pggan_plugins.losses import Hinge

STUB = str(STUB_PLUGIN)
LINES = [
    "schedule.sizes = (4,)",
    "schedule.stable_images = 48",
    "train.tick = 16",
    "train.checkpoint_every = 1",
    "train.keep = 100",
]
"""Steps at 4, 8, ..., 48; ticks and checkpoints at 16, 32 and 48, and a checkpoint before the first step."""


def read_checkpoints(run: str) -> dict[str, bytes]:
    """Return the content of all checkpoints of a run, by file name."""
    return {path.name: path.read_bytes() for path in sorted(Path(run, "checkpoints").glob("*.pt"))}


def list_clocks(run: str) -> list[int]:
    return [entry.images for entry in RunDirectory(Path(run)).checkpoints().read_entries()]


def test_steps_are_taken_while_a_checkpoint_is_written_which_is_as_of_its_tick(
    train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        write_at_once(patch)
        train(*LINES, run_dir="whole")

    # Each but the first takes until the loop has nothing to do but wait for it.
    slow = SlowWriting(monkeypatch)
    weights: dict[int, torch.Tensor] = {}

    class Note:
        @hookimpl
        def after_step(self, state: Any) -> None:
            weights[state.images] = next(state.generator.parameters()).detach().clone()

    train(*LINES, run_dir="run", plugins=(slow, Note()))
    assert read_checkpoints("run") == read_checkpoints("whole")
    assert len(read_checkpoints("run")) == 4
    begin = slow.events.index("write 16")
    steps = [f"step {images}" for images in (20, 24, 28, 32)]
    assert slow.events[begin : begin + 7] == ["write 16", *steps, "wait", "written 16"]
    assert slow.largest == 1
    assert not torch.equal(weights[16], weights[32])


@pytest.mark.parametrize("every", [1, 24, "'phase'"])
def test_a_run_that_is_killed_while_it_writes_goes_on_from_the_checkpoint_before(
    every: Any, train: Callable[..., Any]
) -> None:
    lines = [*LINES, f"train.checkpoint_every = {every}", "schedule.stable_images = 44"]
    train(*lines, run_dir="whole")
    written = list_clocks("whole")
    # The last clock that a write begins at, and steps follow.
    place = [images for images in written if images < 44][-1]

    class KillWhileWriting:
        def __init__(self, slow: SlowWriting) -> None:
            self.slow = slow

        @hookimpl
        def after_step(self, state: Any) -> None:
            if state.images == max(place + 4, 8):
                if place > 0:
                    wait_until(self.slow.is_writing)
                os.kill(os.getpid(), signal.SIGKILL)

    def train_until_killed() -> None:
        with pytest.MonkeyPatch.context() as patch:
            slow = SlowWriting(patch)
            train(*lines, run_dir="run", plugins=(slow, KillWhileWriting(slow)))

    assert in_a_child(train_until_killed) == -signal.SIGKILL
    before = [images for images in written if images < place] or [0]
    assert list_clocks("run") == before
    resume("run", plugins=[STUB])
    assert_same_run(Path("run"), Path("whole"))
    assert list_clocks("run") == written


def test_a_signal_while_a_checkpoint_is_written_stops_after_the_next_is_whole(
    train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    train(*LINES, run_dir="whole")
    with monkeypatch.context() as patch:
        slow = SlowWriting(patch)
        with pytest.raises(Interrupted, match="stopped at images 20 and saved"):
            train(*LINES, run_dir="run", plugins=(slow, StopAt(20)))
    assert slow.events[-6:] == ["step 20", "wait", "written 16", "write 20", "wait", "written 20"]
    assert list_clocks("run") == [0, 16, 20]
    resume("run", plugins=[STUB])
    assert_same_run(Path("run"), Path("whole"))


def test_signals_that_stop_at_once_leave_the_folder_locked_until_the_checkpoint_is_written(
    train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process could begin in the middle of the write, and what it saved would be lost from the manifest."""
    events: list[str] = []
    goes_on = threading.Event()
    save = Checkpoints.save
    wait_for = background_writer._wait_for
    release = RunLock.release

    def save_late(keeper: Checkpoints, snapshot: Any, *args: Any) -> Path:
        if snapshot.images == 16:
            assert goes_on.wait(PATIENCE_SECONDS)
        path = save(keeper, snapshot, *args)
        events.append(f"written {snapshot.images}")
        return path

    def interrupt_twice(thread: Any) -> None:
        if thread.is_alive() and "stopped" in events:
            # The second and the third signal come while the loop waits.
            events.append("wait")
            if events.count("wait") <= 2:
                threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()
            else:
                goes_on.set()
        wait_for(thread)

    def note_release(lock: RunLock) -> None:
        events.append("unlocked")
        release(lock)

    class Stop:
        @hookimpl
        def after_step(self, state: Any) -> None:
            if state.images == 20:
                events.append("stopped")
                os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Checkpoints, "save", save_late)
    monkeypatch.setattr(background_writer, "_wait_for", interrupt_twice)
    monkeypatch.setattr(RunLock, "release", note_release)
    with pytest.raises(StoppedAtOnce):
        train(*LINES, run_dir="run", plugins=(Stop(),))
    goes_on.set()
    assert events == ["written 0", "stopped", "wait", "wait", "wait", "written 16", "unlocked"]


def test_what_reads_in_the_process_sees_what_is_being_written(
    train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the averages that are kept, without which no later checkpoint is written."""
    slow = SlowWriting(monkeypatch)
    seen: list[Any] = []

    class Read:
        @hookimpl
        def after_step(self, run: Any, state: Any) -> None:
            folder = RunDirectory(run.directory)
            if state.images == 20:
                wait_until(slow.is_writing)
                load_generator(run.directory, plugins=[STUB])
                assert not slow.is_writing()
                seen.append(folder.checkpoints().load_last().images)
            if state.images == 28:
                wait_until(slow.is_writing)
                seen.append([images for images, _ in folder.average_snapshots().list_files()])

    lines = ["train.averages = [@averages.PowerFunction()]", "averages.PowerFunction.snapshots = 4"]
    train(*LINES, *lines, run_dir="run", plugins=(slow, Read()))
    assert seen == [16, [12, 24]]
    # Both are due at 48.
    wanted = ["written 36", "averages 48", "wait", "written 48", "write 48", "wait", "written 48"]
    assert slow.events[-len(wanted) :] == wanted
    assert slow.largest == 1


def test_a_folder_that_is_renamed_while_a_checkpoint_is_written_does_not_come_back(
    train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Rename:
        @hookimpl
        def after_step(self, state: Any) -> None:
            if state.images == 20:
                wait_until(slow.is_writing)
                os.rename("run", "moved")

    train(*LINES, run_dir="whole")
    with monkeypatch.context() as patch:
        slow = SlowWriting(patch)
        said = "while the run was failing: cannot make run/checkpoints: No such file or directory"
        with pytest.warns(UserWarning, match=said), pytest.raises(TrainingError, match="was removed or renamed while"):
            train(*LINES, run_dir="run", plugins=(slow, Rename()))
    assert not Path("run").exists()
    resume("moved", plugins=[STUB])
    assert_same_run(Path("moved"), Path("whole"))


def fill_disk(monkeypatch: pytest.MonkeyPatch, clock: int) -> None:
    """Let there be no space for the checkpoint, and the averages, of a clock."""

    def write(path: Path, content: Any) -> None:
        if not path.name.startswith(f"{clock:012d}-"):
            write_atomically(path, content)
            return
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "replace", refuse)
            write_atomically(path, content)

    def refuse(source: str, target: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoints, "write_atomically", write)
    monkeypatch.setattr("pggan_kit.runs.average_snapshots.write_atomically", write)


FULL = r"^cannot write run/{folder}/0+{clock}-.*: No space left on device\. What was saved before is untouched$"
AVERAGES = ["train.averages = [@averages.PowerFunction()]", "averages.PowerFunction.snapshots = 2"]


@pytest.mark.parametrize(
    ("clock", "seen_at", "lines", "folder"),
    [
        pytest.param(16, 32, [], "checkpoints", id="at the next tick"),
        pytest.param(48, 48, [], "checkpoints", id="at the end"),
        pytest.param(24, 32, AVERAGES, "averages", id="averages"),
    ],
)
def test_a_disk_that_is_full_in_the_thread_fails_the_run(
    clock: int,
    seen_at: int,
    lines: list[str],
    folder: str,
    train: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps: list[int] = []
    ended: list[str] = []

    class Note:
        @hookimpl
        def after_step(self, state: Any) -> None:
            steps.append(state.images)

        @hookimpl
        def on_error(self, error: BaseException) -> None:
            ended.append("error")

        @hookimpl
        def after_run(self) -> None:
            ended.append("run")

    # It fails at the step after the write.
    with monkeypatch.context() as patch:
        fill_disk(patch, clock)
        with pytest.raises(TrainingError, match=FULL.format(folder=folder, clock=clock)):
            train(*LINES, *lines, run_dir="run", plugins=(Note(),))
    assert steps[-1] == seen_at and ended == ["error"]
    assert list_clocks("run")[-1] < clock

    # With space again it goes on as if nothing had happened.
    resume("run", plugins=[STUB])
    train(*LINES, *lines, run_dir="whole")
    assert_same_run(Path("run"), Path("whole"))


class NanOnce(Hinge):
    """A loss that is not finite once, in the step from images 24 on."""

    @hookimpl
    def before_run(self, run: Any) -> None:
        self.run = run

    def generator(self, fake: Any, real: Any) -> Any:
        if self.run.state.images == 24 and self.run.state.rewinds == 0:
            raise NonFiniteError("generator", ("hinge",))
        return super().generator(fake, real)


@pytest.mark.parametrize("way", ["asked to stop", "diverged"])
def test_a_run_that_cannot_save_does_not_end_as_if_it_had(
    way: str, train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the message of a run that stops says is on the disk."""
    lines = list(LINES)
    plugins: tuple[Any, ...] = (StopAt(24),)
    if way == "diverged":
        lines.append("train.loss = @losses.NanOnce()")
        plugins = (Component("losses", "NanOnce", NanOnce),)
    fill_disk(monkeypatch, 24)
    with pytest.raises(TrainingError, match=FULL.format(folder="checkpoints", clock=24)):
        train(*lines, run_dir="run", plugins=plugins)
    assert list_clocks("run") == [0, 16]


def test_a_disk_that_is_full_hides_no_other_error_and_is_said(
    train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fail:
        @hookimpl
        def after_step(self, state: Any) -> None:
            if state.images == 20:
                raise LookupError("the plugin's own")

    fill_disk(monkeypatch, 16)
    said = "while the run was failing: cannot write run/checkpoints/.* No space left on device"
    with pytest.warns(UserWarning, match=said), pytest.raises(TrainingError, match="the plugin's own"):
        train(*LINES, run_dir="run", plugins=(Fail(),))
    assert "warning: while the run was failing: cannot write" in Path("run/log.txt").read_text()
    assert list_clocks("run") == [0]


def test_a_device_that_copies_late_gives_the_same_files(
    train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads a copy waits for it: the thread that writes, and a run that goes back after a NaN."""
    lines = [*LINES, *AVERAGES, "train.loss = @losses.NanOnce()", "train.non_finite = 'rewind'"]
    plugins = (Component("losses", "NanOnce", NanOnce),)
    train(*lines, run_dir="whole", plugins=plugins)
    monkeypatch.setattr(loop, "choose_copier", lambda device: LaggingCopier())
    run = train(*lines, run_dir="run", plugins=plugins)
    assert run.state.rewinds == 1
    assert read_checkpoints("run") == read_checkpoints("whole")
    averages = [[path.name for path in sorted(Path(name, "averages").iterdir())] for name in ("run", "whole")]
    assert averages[0] == averages[1] and len(averages[0]) == 2


def test_one_copy_of_the_state_is_in_memory_beside_it(
    train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy of a tick is freed before the next is made, without help from the collector."""
    SlowWriting(monkeypatch)
    copies: list[weakref.ref[torch.Tensor]] = []
    alive: list[int] = []
    begin = Snapshot.begin_copy

    def watch(snapshot: Snapshot, copier: Any) -> Any:
        alive.append(sum(ref() is not None for ref in copies))
        pending = begin(snapshot, copier)
        copies.extend(weakref.ref(tensor) for tensor in pending.wait().generator.values())
        return pending

    monkeypatch.setattr(Snapshot, "begin_copy", watch)
    train(*LINES, run_dir="run")
    assert alive == [0] * 4


def test_the_time_that_the_loop_waits_is_counted_and_not_that_of_the_thread(
    train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread takes 1,000 s of which the loop waits for none, and then 100 s while it waits."""
    now = 0.0
    monkeypatch.setattr(measures, "time", SimpleNamespace(perf_counter=lambda: now))
    slow = SlowWriting(monkeypatch)
    results: list[Any] = []

    class Clock:
        @hookimpl
        def after_step(self, state: Any) -> None:
            nonlocal now
            if state.images == 28:
                wait_until(slow.is_writing)
                now += 1000.0

        @hookimpl
        def after_run(self, result: Any) -> None:
            results.append(result)

    replace = os.replace

    def replace_slowly(source: Any, target: Any) -> None:
        nonlocal now
        # Its write goes on only when the loop waits.
        if Path(target).name.startswith("000000000048-"):
            now += 100.0
        replace(source, target)

    monkeypatch.setattr(os, "replace", replace_slowly)
    train(*LINES, run_dir="run", plugins=(slow, Clock()))
    (result,) = results
    assert result["seconds"] == 1100.0
    assert result["shares"]["checkpoints"] == pytest.approx(100 / 1100)
    assert last(Path("run"))["images"] == 48

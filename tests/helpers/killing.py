"""Runs that are killed, and what two runs that should be the same are compared by."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from pggan_kit import hookimpl
from pggan_kit.runs.directory import RunDirectory
from pggan_kit.testing.support import are_equal

OWN = ("Timing/", "Resources/")
"""Tags that are different in each run."""


class StopAt:
    """A plugin that asks the run to stop after the step that brings the clock to a place."""

    def __init__(self, images: int) -> None:
        self.images = images

    @hookimpl
    def after_step(self, state: Any) -> None:
        if state.images == self.images:
            os.kill(os.getpid(), signal.SIGTERM)


class KillAt:
    """A plugin that kills the process after the step that brings the clock to a place."""

    def __init__(self, images: int) -> None:
        self.images = images

    @hookimpl
    def after_step(self, state: Any) -> None:
        if state.images == self.images:
            os.kill(os.getpid(), signal.SIGKILL)


def rows(run: Path) -> list[dict[str, Any]]:
    """`stats.jsonl`, without time and memory, and so without checksums."""
    found = RunDirectory(run).stats()
    return [{tag: value for tag, value in row.items() if not tag.startswith(OWN)} for row in found]


def last(run: Path) -> dict[str, Any]:
    """The content of the last checkpoint: weights, average, optimizers, clock, accumulators, what parts saved."""
    return RunDirectory(run).checkpoints().load_last().content()


def events(run: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows: (step, value) by tag, without time and memory."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shown = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
    tags = [tag for tag in shown.Tags()["scalars"] if not tag.startswith(OWN)]
    return {tag: [(event.step, event.value) for event in shown.Scalars(tag)] for tag in tags}


def pictures(run: Path) -> dict[str, bytes]:
    """Grids and animation."""
    return {str(p.relative_to(run)): p.read_bytes() for p in sorted([*run.glob("samples/*"), *run.glob("*.gif")])}


def assert_same_run(found: Path, wanted: Path) -> None:
    """Require runs that are equal bit for bit, but for time and memory, and for a time limit, which a process has."""
    ours, theirs = last(found), last(wanted)
    assert ours.keys() == theirs.keys()
    for content in (ours, theirs):
        content["identity"]["settings"].pop("train.time_limit", None)
    for key in theirs:
        assert are_equal(ours[key], theirs[key]), f"{key} differs"
    assert rows(found) == rows(wanted)
    assert not [path for path in found.rglob("*") if path.name.endswith(".part")], "unfinished files are left"


@contextlib.contextmanager
def killed_at(name: str, count: int) -> Iterator[None]:
    """While entered, the `count`-th call of `os.<name>` kills this process, as a power cut would: nothing is tidied."""
    real, calls = getattr(os, name), 0

    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)

    setattr(os, name, call)
    try:
        yield
    finally:
        setattr(os, name, real)


def in_a_child(work: Any) -> int:
    """Do something in a fork of this process. Returns its exit status, negative where a signal ended it."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            torch.set_num_threads(1)
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

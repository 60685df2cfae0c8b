"""Test that a run that was stopped at any moment and resumed equals, bit for bit, one that was never stopped."""

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.killing import StopAt, assert_same_run, events, in_a_child, killed_at, last, pictures, rows
from helpers.paths import ROOT, STUB_PLUGIN

from pggan_kit import Component, hookimpl
from pggan_kit.api.train import resume
from pggan_kit.errors import Interrupted
from pggan_kit.runs.directory import RunDirectory

STUB = str(STUB_PLUGIN)

RICH = [
    "train.augmentation = @augmentations.ADA()",
    "augmentations.ADA.p = 0.5",
    "augmentations.ADA.interval = 12",
    "augmentations.ADA.adjust_images = 100",
    "losses.Hinge.penalties = [@penalties.R1()]",
    "penalties.R1.every = 3",
    "optimizers.Adam.lr = @curves.Linear()",
    "curves.Linear.begin = 1e-3",
    "curves.Linear.end = 1e-4",
    "curves.Linear.start_images = -24",
    "penalties.R1.weight = @curves.Exponential()",
    "curves.Exponential.begin = 10.0",
    "curves.Exponential.end = 1.0",
]
"""Adaptive augmentation, a lazy penalty, and a falling learning rate and weight: all that moves or keeps a state."""

SHARED = [
    "train.update = @updates.JointBatch()",
    "updates.JointBatch.optimizer = @optimizers.SharedAdam()",
    "train.generator_optimizer = None",
    "train.discriminator_optimizer = None",
]
"""One optimizer with one counter for both networks."""

TWO_STAGES = ["schedule.sizes = (4, 8)"]
"""One growth and one fade: 24 images, 6 steps."""

PHASES = [
    "train.growth = @growth.Everything()",
    "growth.Everything.moments = 'forget_at_phases'",
    "train.tick = 1000",
    "schedule.stable_images = {4: 8, 8: 16}",
]
"""Ticks of up to four steps, whose means are gathered over several processes."""

CHOICES = {"rich": [*RICH, *TWO_STAGES], "shared, phases": [*SHARED, *PHASES, *TWO_STAGES]}


@pytest.mark.parametrize("choice", CHOICES)
def test_a_run_that_stops_after_every_single_step(choice: str, train: Callable[..., Any]) -> None:
    """As many processes as steps: mid-fade, at a fade's end, at a stage's end, within a tick."""
    whole = train(*CHOICES[choice], run_dir="whole")
    with pytest.raises(Interrupted):
        train(*CHOICES[choice], run_dir="run", plugins=(StopAt(4),))
    for images in range(8, whole.schedule.total, 4):
        with pytest.raises(Interrupted):
            resume("run", plugins=[STUB, StopAt(images)])
        assert last(Path("run"))["images"] == images
    resume("run", plugins=[STUB])
    assert_same_run(Path("run"), Path("whole"))


CALLS = {"fsync": (7, 11, 14), "replace": (4, 5, 6, 7, 8), "unlink": (9,)}
"""Calls before which the process is killed, so that each leaves other files.

The folder is in its place (fsync 7), `run.json` is not replaced (replace 4), the first checkpoint is not in its place
(replace 5) or is (fsync 11), the manifest does not name it (replace 6) or does, with a row of the first tick
(fsync 14); the same of the second checkpoint (replace 7 and 8), whose predecessor is still there (unlink 9).
"""
WRITES = [(name, count) for name, counts in CALLS.items() for count in counts]


@pytest.mark.filterwarnings("error::UserWarning")
def test_a_run_that_is_killed_in_every_write(train: Callable[..., Any]) -> None:
    """Before fsyncs, renames and removals: of the run's description, of stats, of checkpoints, of the manifest.

    No checkpoint and no temporary file too many is left, and nothing is called damaged.
    """
    lines = ["schedule.sizes = (4,)", "schedule.stable_images = 16", "train.tick = 4", "train.keep = 1"]
    train(*lines, run_dir="whole")
    killed = set()
    for name, count in WRITES:
        folder = Path(f"{name}{count}")

        def train_until_killed(folder: Path = folder, name: str = name, count: int = count) -> None:
            with killed_at(name, count):
                train(*lines, run_dir=str(folder))

        status = in_a_child(train_until_killed)
        assert status in (0, -signal.SIGKILL)
        if not (folder / "run.json").exists():
            continue
        if status:
            killed.add(name)
            resume(folder, plugins=[STUB])
        assert_same_run(folder, Path("whole"))
        assert list_files(folder) == list_files(Path("whole"))
    assert killed == {"fsync", "replace", "unlink"}


def list_files(folder: Path) -> list[str]:
    """Return the paths of all files, those of checkpoints by their clock: equal weights may be pickled differently."""
    paths = [str(path.relative_to(folder)) for path in folder.rglob("*")]
    return sorted(re.sub(r"-[0-9a-f]{8}\.pt", ".pt", path) for path in paths)


class KillAt:
    """An observer that kills the process in a hook at a clock."""

    def __init__(self, hook: str, images: int) -> None:
        self.at = (hook, images)

    def _kill_if_there(self, hook: str, state: Any) -> None:
        if self.at == (hook, state.images):
            os.kill(os.getpid(), signal.SIGKILL)

    @hookimpl
    def before_stage(self, state: Any) -> None:
        self._kill_if_there("before_stage", state)

    @hookimpl
    def after_step(self, state: Any) -> None:
        self._kill_if_there("after_step", state)

    @hookimpl
    def after_tick(self, state: Any) -> None:
        self._kill_if_there("after_tick", state)

    @hookimpl
    def after_fade(self, state: Any) -> None:
        self._kill_if_there("after_fade", state)

    @hookimpl
    def after_stage(self, state: Any) -> None:
        self._kill_if_there("after_stage", state)


KILLS = [
    ("before_stage", 0),
    ("after_step", 4),
    ("after_tick", 8),
    ("after_stage", 8),
    ("before_stage", 8),
    ("after_step", 12),
    ("after_tick", 16),
    ("after_fade", 16),
    ("after_stage", 24),
]
WATCHED = [
    "train.observers = [@observers.TensorBoard(), @observers.Samples(), @observers.Growth(), "
    "@observers.TransitionShock()]"
]


def test_a_run_that_is_killed_at_every_boundary_one_after_the_other(train: Callable[..., Any]) -> None:
    """What observers wrote after the checkpoint is taken back too: nothing appears twice."""
    lines = [*RICH, *TWO_STAGES, *WATCHED, "observers.TensorBoard.count = 4", "observers.Samples.count = 4"]
    train(*lines, run_dir="whole")
    first, *others = KILLS
    assert in_a_child(lambda: train(*lines, run_dir="run", plugins=(KillAt(*first),))) == -signal.SIGKILL
    for place in others:
        observer = KillAt(*place)
        assert in_a_child(lambda observer=observer: resume("run", plugins=[STUB, observer])) == -signal.SIGKILL, place
    resume("run", plugins=[STUB])
    assert_same_run(Path("run"), Path("whole"))
    assert events(Path("run")) == events(Path("whole"))
    assert pictures(Path("run")) == pictures(Path("whole"))
    steps = [step for step, _ in events(Path("run"))["Progress/alpha"]]
    assert steps == [row["images"] for row in rows(Path("run"))] == [8, 16, 24]


def test_a_run_that_stops_between_ticks_leaves_what_another_leaves(train: Callable[..., Any]) -> None:
    """Checkpoints, events and pictures too: the numbers of a switch are logged at the tick after theirs."""
    lines = ["train.tick = 16", *WATCHED, "observers.TensorBoard.count = 4", "observers.Samples.count = 4"]
    train(*lines, run_dir="whole")
    with pytest.raises(Interrupted):
        train(*lines, run_dir="run", plugins=(StopAt(4),))
    for images in (12, 20, 28, 36):
        with pytest.raises(Interrupted):
            resume("run", plugins=[STUB, StopAt(images)])
    resume("run", plugins=[STUB])
    assert_same_run(Path("run"), Path("whole"))
    assert events(Path("run")) == events(Path("whole"))
    assert "Transition/rms/ema" in events(Path("whole"))
    assert pictures(Path("run")) == pictures(Path("whole"))
    assert Path("run/transitions.jsonl").read_bytes() == Path("whole/transitions.jsonl").read_bytes()
    kept = {folder: RunDirectory(Path(folder)).checkpoints().read_entries() for folder in ("run", "whole")}
    ours, theirs = ([(entry.images, entry.forever) for entry in entries] for entries in kept.values())
    assert ours == theirs


class Advance:
    """A switch that ends each stage as soon as it can."""

    @hookimpl
    def fade_alpha(self, progress: float) -> float:
        return progress

    @hookimpl
    def should_advance(self) -> bool:
        return True


def test_a_stage_that_has_not_begun_is_not_asked_whether_it_is_over(train: Callable[..., Any]) -> None:
    lines = ["train.switch = @switches.Advance()"]
    switch = Component("switches", "Advance", Advance)
    train(*lines, run_dir="whole", plugins=(switch,))
    with pytest.raises(Interrupted):
        train(*lines, run_dir="run", plugins=(switch, StopInStage()))
    assert last(Path("run"))["starts"] == [0, 4] and last(Path("run"))["images"] == 4
    resume("run", plugins=[STUB, switch])
    assert_same_run(Path("run"), Path("whole"))


class StopInStage:
    """An observer that asks the run to stop as the second stage begins."""

    @hookimpl
    def before_stage(self, stage: Any) -> None:
        if stage.index == 1:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_run_that_was_killed_before_its_first_checkpoint_goes_on_from_its_start(train: Callable[..., Any]) -> None:
    train(run_dir="whole")
    assert in_a_child(lambda: train(run_dir="run", plugins=(KillAt("before_stage", 0),))) == -signal.SIGKILL
    assert not Path("run/checkpoints").exists()
    resume("run", plugins=[STUB])
    assert_same_run(Path("run"), Path("whole"))


def test_each_promise_of_the_documentation_names_a_test_that_is_there() -> None:
    named = re.findall(r"`((?:tests|benchmarks)/[\w/]+\.py)::(\w+)`", (ROOT / "docs/reliability.md").read_text())
    assert len(named) > 25
    for file, test in named:
        assert f"def {test}(" in (ROOT / file).read_text(), f"{file}::{test}"

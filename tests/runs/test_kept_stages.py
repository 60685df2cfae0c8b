"""Test `train.keep_stages`: what is kept for good of finished fades and stages, and what can be done with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY
from helpers.gin_text import bind_again
from helpers.killing import KillAt, StopAt, assert_same_run, in_a_child, last
from helpers.paths import STUB_PLUGIN

import pggan_kit
from pggan_kit.api.train import resume
from pggan_kit.errors import Interrupted, RunError
from pggan_kit.runs.directory import RunDirectory
from pggan_kit.testing.support import are_equal

STUB = str(STUB_PLUGIN)


def list_kept(run: str | Path) -> list[tuple[int, str]]:
    """Return the clock of each checkpoint, and what it holds."""
    return [(entry.images, entry.holds) for entry in RunDirectory(Path(run)).checkpoints().read_entries()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a run that keeps whole checkpoints: its stages end at 8, 24 and 40, its fades at 16 and 32."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "tiny.gin").write_text(bind_again(TINY, ["train.keep = 1"]))
    return pggan_kit.train(folder / "tiny.gin", run_dir=folder / "run", plugins=[STUB])


@pytest.mark.parametrize("holds", ["weights", "average"])
def test_stage_ends_without_optimizers_are_smaller_and_sampled_the_same(
    holds: str, whole: Any, train: Callable[..., Any], tiny: Callable[..., str]
) -> None:
    lines = ["train.keep = 1", f"train.keep_stages = '{holds}'"]
    with pytest.raises(Interrupted):
        train(*lines, run_dir="run", plugins=(StopAt(12),))
    # Without optimizers no run goes on: the whole checkpoint of the same clock is there until the next.
    resumed = resume("run", plugins=[STUB])
    assert list_kept(whole.directory) == [(images, "state") for images in (0, 8, 16, 24, 32, 40)]
    assert list_kept("run") == [*((images, holds) for images in (8, 16, 24, 32)), (32, "state"), (40, "state")]
    assert are_equal(last(Path("run"))["generator"], last(whole.directory)["generator"])
    for stage in range(3):
        assert torch.equal(resumed.samples(stage, count=2), whole.samples(stage, count=2))
    first, *_ = RunDirectory(Path("run")).checkpoints().read_entries()
    size = (Path("run/checkpoints") / first.file).stat().st_size
    assert size < 0.8 * max(path.stat().st_size for path in (whole.directory / "checkpoints").glob("000000000008*"))

    refused = rf"^--from run@4x4: that run kept its {holds} alone \(train.keep_stages\), and a branch goes on with the"
    with pytest.raises(RunError, match=refused):
        pggan_kit.train(tiny(), plugins=[STUB], start_from="run@4x4", run_dir="branch")
    if holds == "weights":
        stemmed = pggan_kit.train(tiny(), plugins=[STUB], stem="run@8x8", run_dir="stemmed")
        assert stemmed.state.is_over
    else:
        with pytest.raises(RunError, match=r"^--stem run@8x8: .* and a stem has the weights of both networks"):
            pggan_kit.train(tiny(), plugins=[STUB], stem="run@8x8", run_dir="stemmed")
    pggan_kit.train(tiny("schedule.stable_images = {4: 8, 16: 16}"), plugins=[STUB], start_from="run", run_dir="later")


def test_nothing_of_finished_stages_is_kept_if_so_asked(train: Callable[..., Any], tiny: Callable[..., str]) -> None:
    run = train("train.keep = 1", "train.keep_stages = 'nothing'", run_dir="run")
    assert list_kept("run") == [(32, "state"), (40, "state")]
    with pytest.raises(RunError, match=r"stage 0: no such .* 2 \(16x16\); nothing was kept of others \(tr"):
        run.samples(0)
    with pytest.raises(RunError, match=r"^--from run@0: no such .*; nothing was kept of others"):
        pggan_kit.train(tiny(), plugins=[STUB], start_from="run@0", run_dir="branch")


def test_metrics_of_stage_ends_need_something_of_them(rejected: Callable[..., str]) -> None:
    rejected(
        r"train\.keep_stages is 'nothing', and metrics\.Coherence compares the ends of stages: bind it to 'average'",
        "train.keep_stages = 'nothing'",
        "train.metrics = [@metrics.Coherence()]",
    )


def test_a_run_that_is_killed_as_it_keeps_a_part_keeps_it_once(train: Callable[..., Any]) -> None:
    """A process that is killed has the part of a clock and not the whole, or both."""
    lines = ["train.keep = 1", "train.keep_stages = 'average'", "train.checkpoint_every = 'phase'"]
    train(*lines, run_dir="unbroken")

    def train_until_killed() -> None:
        train(*lines, run_dir="run", plugins=(KillAt(20),))

    assert in_a_child(train_until_killed) < 0
    folder = RunDirectory(Path("run")).checkpoints()
    # The whole states are lost, also one that the thread which writes was about to remove.
    kept = [entry.file for entry in folder.read_entries() if entry.holds != "state"]
    for file in Path("run/checkpoints").iterdir():
        if file.name not in kept:
            file.unlink()
    first = RunDirectory(Path("unbroken")).checkpoints().read_entries()
    assert [entry.images for entry in first] == [8, 16, 24, 32, 32, 40]
    # No whole state is left: that is said, and nothing is removed.
    with pytest.raises(RunError, match=r"no checkpoint in .* is whole"), pytest.warns(UserWarning, match="manifest"):
        resume("run", plugins=[STUB])
    assert len(list(Path("run/checkpoints").glob("*.pt"))) == 2

    assert in_a_child(lambda: train(*lines, run_dir="other", plugins=(KillAt(20),))) < 0
    resume("other", plugins=[STUB])
    assert list_kept("other") == list_kept("unbroken")
    assert_same_run(Path("other"), Path("unbroken"))

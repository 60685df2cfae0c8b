"""Test the training of a trial's run in its folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pggan_kit.api.train import train
from pggan_kit.errors import RunError
from pggan_kit.runs.directory import RunDirectory
from pggan_kit.trials.training import train_or_resume


def test_a_folder_that_is_a_link_to_another_disk_stays_one(tiny: Callable[..., str], stub: str) -> None:
    """What an earlier process left there, which saved nothing, is removed."""
    Path("disk/checkpoints").mkdir(parents=True)
    Path("disk/log.txt").write_text("left")
    Path("trial").symlink_to("disk")
    train_or_resume(Path("trial"), Path(tiny()), ["schedule.sizes = (4,)"], [stub])
    assert Path("trial").is_symlink()
    assert RunDirectory(Path("disk")).checkpoints().load_last().images == 8
    assert "left" not in Path("disk/log.txt").read_text()


def test_files_of_others_are_not_removed(tiny: Callable[..., str], stub: str) -> None:
    Path("trial").mkdir()
    Path("trial/notes.txt").write_text("mine")
    with pytest.raises(RunError, match=r"trial holds notes\.txt and no run: move it away"):
        train_or_resume(Path("trial"), Path(tiny()), [], [stub])
    assert Path("trial/notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("other", "change"),
    [
        (["train.seed = 1"], r"was train\.seed = 1 and is train\.seed = 0"),
        (["train.seed = 0", "train.switch = @switches.Hard()"], r"was train\.switch = @switches\.Hard\(\) and is"),
        (["train.seed = 0", "data.seed = 3"], r"was data\.seed = 3 and is not there"),
    ],
)
def test_a_run_of_another_experiment_is_no_trial(
    other: list[str], change: str, tiny: Callable[..., str], stub: str
) -> None:
    config = tiny("schedule.sizes = (4,)")
    run = train(config, other, run_dir="trial", plugins=[stub])
    with pytest.raises(RunError, match=rf"trial holds a run of another experiment \(its config {change}"):
        train_or_resume(Path("trial"), Path(config), ["train.seed = 0"], [stub])
    assert run.files.checkpoints().load_last().images == 8


def test_a_trial_may_be_moved_with_its_data(
    tiny: Callable[..., str], stub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paths in its config are relative, and absolute in the run's."""
    Path("here").mkdir()
    lines = ["schedule.sizes = (4,)", "data.cache = 'cache'"]
    config = tmp_path / tiny(*lines)
    monkeypatch.chdir("here")
    train_or_resume(Path("trial"), config, [], [stub])
    monkeypatch.chdir(tmp_path)
    Path("here").rename("there")
    monkeypatch.chdir("there")
    train_or_resume(Path("trial"), config, [], [stub])
    assert "complete already" in Path("trial/log.txt").read_text()

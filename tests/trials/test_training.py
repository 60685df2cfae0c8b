"""Test the training of a trial's run in its folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

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

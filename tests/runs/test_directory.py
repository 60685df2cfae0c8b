"""Test a run's folder: begun as one, kept whole while a run trains in it, and never written through a link."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from click.testing import Result
from helpers.killing import StopAt, in_a_child, killed_at

from pggan_kit import hookimpl
from pggan_kit.api.train import resume
from pggan_kit.errors import Interrupted, RunError, TrainingError
from pggan_kit.experiment import NOTHING
from pggan_kit.runs import directory
from pggan_kit.runs.directory import START, RunDirectory, describe_start
from pggan_kit.system.files import make_whole_folder
from pggan_kit.system.locks import LOCK
from pggan_kit.training.checkpoint_writer import CheckpointWriter
from pggan_kit.training.measures import Meter

DATA = {"images": 8, "channels": 1, "classes": 0}
BEGIN = describe_start([], "train.seed = 1\n", "train.seed = 1\n", "pggan-kit train", data=DATA, schedule={})


# The start of a run


def test_runs_that_begin_at_once_have_numbers_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under names of their own too: the name of a folder is protected by itself, its number is not."""
    monkeypatch.chdir(tmp_path)
    children = []
    for child in range(8):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                for run in range(5):
                    RunDirectory.create(None, f"config-{child}-{run}", BEGIN)
                status = 0
            finally:
                os._exit(status)
        children.append(pid)
    assert all(os.waitpid(pid, 0)[1] == 0 for pid in children)
    numbers = sorted(path.name[:5] for path in Path("runs").iterdir() if path.is_dir())
    assert numbers == [f"{number:05d}" for number in range(40)]


def test_numbers_go_on_after_five_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs/99999-x").mkdir(parents=True)
    Path("runs/٢٠٠٠٠٠-x").mkdir()  # digits of another script number no run
    for number in (100_000, 100_001):
        files = RunDirectory.create(None, "x", BEGIN)
        files.unlock()
        assert files.path == Path(f"runs/{number}-x")


def test_numbers_that_are_taken_each_time_end_in_a_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def be_too_late(path: Path, start: object) -> None:
        raise OSError(errno.ENOTEMPTY, "Directory not empty")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(directory, "_make_folder", be_too_late)
    with pytest.raises(RunError, match="each number was taken meanwhile; name one by --run-dir"):
        RunDirectory.create(None, "x", BEGIN)
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    RunDirectory.create(None, "x", BEGIN).unlock()


@pytest.mark.parametrize("place", ["run", "runs", "empty"])
@pytest.mark.parametrize("call", ["mkdir", "open", "fsync", "replace", "rename"])
def test_a_process_that_is_killed_as_it_begins_a_run_leaves_a_run_or_none(
    place: str, call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every call that touches the disk: in a folder of its own, one that is numbered, and one that was there."""
    monkeypatch.chdir(tmp_path)
    path = None if place == "runs" else Path(place)
    kills = 0
    for count in range(1, 100):
        shutil.rmtree(place, ignore_errors=True)
        if place == "empty":
            Path("empty").mkdir()

        def begin_and_die(count: int = count) -> None:
            with killed_at(call, count):
                RunDirectory.create(path, "x", BEGIN)

        status = in_a_child(begin_and_die)
        if status == 0:
            break
        assert status == -signal.SIGKILL
        kills += 1

        # What is there is a whole run, or it is as if nothing had been there.
        folder = Path("runs/00000-x") if path is None else path
        if place != "empty" and folder.exists():
            assert {name: (folder / name).read_text() for name in START} == BEGIN
            continue
        if not (folder / "run.json").exists():
            files = RunDirectory.create(path, "x", BEGIN)
            files.unlock()
            assert files.path == folder and RunDirectory.open(folder).about()["command"] == "pggan-kit train"
    assert kills >= (0 if (call, place) in {("rename", "empty"), ("mkdir", "empty")} else 1)


def test_a_folder_with_a_config_of_somebody_else_is_not_begun_in(tmp_path: Path) -> None:
    (tmp_path / "config.gin").write_text("mine")
    with pytest.raises(RunError, match="is not empty"):
        RunDirectory.create(tmp_path, "x", BEGIN)
    assert (tmp_path / "config.gin").read_text() == "mine"


def test_what_is_no_empty_folder_is_named_for_what_it_is(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    link = tmp_path / "link"
    link.symlink_to("gone")
    disk = tmp_path / "disk"
    (disk / "lost+found").mkdir(parents=True)
    for path, message in {
        file: r"file is no folder: name one that is empty, or not there yet",
        link: r"link is a link to gone, which is not there",
        disk: r"disk holds lost\+found, .*: name a folder below it, such as .*disk/run",
    }.items():
        with pytest.raises(RunError, match=message):
            RunDirectory.create(path, "x", BEGIN)
    assert [path.name for path in disk.iterdir()] == ["lost+found"]


def test_a_folder_that_is_filled_meanwhile_is_left_alone(tmp_path: Path) -> None:
    """And nothing that was made aside is left."""

    def fill_meanwhile() -> None:
        with make_whole_folder(tmp_path / "run"):
            (tmp_path / "run").mkdir()
            (tmp_path / "run/file").touch()

    with pytest.raises(OSError, match="not empty"):
        fill_meanwhile()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_run_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(RunError, match="No space left on device"):
        RunDirectory.create(tmp_path / "run", "x", BEGIN)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_run_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "config.gin").touch()
    with pytest.raises(RunError, match="A process was killed as it began a run there"):
        RunDirectory.open(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(RunError, match=r"It has checkpoints: put its run\.json back"):
        RunDirectory.open(tmp_path)
    (tmp_path / "run.json").symlink_to("run.json")  # cannot be read, by root either
    with pytest.raises(RunError, match=r"cannot read .*run\.json: Too many levels"):
        RunDirectory.open(tmp_path)


# While a run trains


@pytest.fixture
def train(train: Callable[..., Any]) -> Callable[..., Any]:
    """Train the tiny experiment without its last stage, which nothing here needs: 24 images."""
    return lambda *lines, **options: train("schedule.sizes = (4, 8)", *lines, **options)


class DoAt:
    """An observer that does something to the run's folder at the tick of images 16."""

    def __init__(self, action: Callable[[Path], Any]) -> None:
        self.action = action

    @hookimpl
    def after_tick(self, run: Any, state: Any) -> None:
        if state.images == 16:
            self.action(run.directory)


def read_start(run: Path) -> dict[str, Any]:
    """Return the files that a run begins with, without what `run.json` says of its processes."""
    files: dict[str, Any] = {name: (run / name).read_text() for name in START}
    about = json.loads(files["run.json"])
    del about["processes"]
    return {**files, "run.json": about}


@pytest.mark.parametrize("resumed", [False, True])
def test_files_that_are_taken_away_are_put_back(resumed: bool, train: Callable[..., Any], stub: str) -> None:
    def take(run: Path) -> None:
        for name in START:
            (run / name).unlink()

    if resumed:
        train(run_dir="run", plugins=(DoAt(lambda run: shutil.copytree(run, "stopped")),))
        before = read_start(Path("stopped"))
        with pytest.warns(UserWarning, match="was removed while the run was training; it was written again"):
            # The copy was made in the tick of images 16, before its checkpoint.
            run = resume("stopped", plugins=[stub, DoAt(take)])
        assert read_start(run.directory) == before
    else:
        with pytest.warns(UserWarning, match="was removed while the run was training; it was written again"):
            run = train(run_dir="run", plugins=(DoAt(take),))
    log = (run.directory / "log.txt").read_text()
    assert all(log.count(f"warning: {run.files.path / name} was removed while") == 1 for name in START)
    assert resume(run.directory, plugins=[stub]).state.images == 24, "it is a run again"


def test_checkpoints_that_are_taken_away_are_named(train: Callable[..., Any], stub: str) -> None:
    with pytest.warns(UserWarning, match=r"2 checkpoints were removed from run/checkpoints .*: 0{12}-.*, 0{11}8"):
        run = train(run_dir="run", plugins=(DoAt(lambda run: shutil.rmtree(run / "checkpoints")),))
    assert [entry.images for entry in run.checkpoints.read_entries()] == [16, 24]
    assert (run.directory / "log.txt").read_text().count("checkpoints were removed from") == 1


def test_rows_that_are_taken_away_are_said(train: Callable[..., Any]) -> None:
    with pytest.warns(UserWarning, match=r"stats\.jsonl was removed while the run was training: the rows until now"):
        run = train(run_dir="run", plugins=(DoAt(lambda run: (run / "stats.jsonl").unlink()),))
    assert [row["images"] for row in run.stats] == [24]


@pytest.mark.parametrize("kept", [0, 1])
def test_rows_that_were_lost_are_said_as_a_run_is_resumed(kept: int, train: Callable[..., Any], stub: str) -> None:
    """Whole rows at the end leave no half row behind."""
    with pytest.raises(Interrupted):
        train(run_dir="run", plugins=(StopAt(20),))
    rows = Path("run/stats.jsonl")
    rows.write_text("".join(rows.read_text().splitlines(keepends=True)[:kept]))
    with pytest.warns(UserWarning, match=rf"ends at images {8 * kept}, and the last tick was at images 16: the rows"):
        resume("run", plugins=[stub])


def test_a_run_whose_folder_is_taken_away_fails(train: Callable[..., Any], stub: str) -> None:
    """And it can be resumed where the folder is now."""
    with pytest.raises(TrainingError, match="run was removed or renamed while the run was training in it"):
        train(run_dir="run", plugins=(DoAt(lambda run: run.rename("elsewhere")),))
    assert not Path("run").exists()
    assert resume("elsewhere", plugins=[stub]).state.images == 24


def test_a_run_whose_working_folder_is_changed_fails(train: Callable[..., Any], stub: str) -> None:
    """Its path would lead to another folder, which may be there."""
    Path("else/run").mkdir(parents=True)
    home = Path.cwd()
    with pytest.raises(TrainingError, match=r"the working folder was changed .* plugin must not call os\.chdir"):
        train(run_dir="run", plugins=(DoAt(lambda run: os.chdir("else")),))
    os.chdir(home)
    assert not list(Path("else/run").iterdir())
    assert "failed: the working folder was changed" in Path("run/log.txt").read_text()
    assert resume("run", plugins=[stub]).state.images == 24


def read_files(folder: Path) -> dict[Path, bytes]:
    """Return the contents of all files in a folder."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("what", ["folder", "lock"])
@pytest.mark.parametrize("fails", [False, True])
def test_a_process_that_has_lost_its_lock_writes_nothing_into_the_run_at_its_path(
    what: str, fails: bool, train: Callable[..., Any]
) -> None:
    """Another process may train there by then: in another folder, or in the same one whose `.lock` was removed."""
    others: dict[Path, bytes] = {}

    def take(run: Path) -> None:
        if what == "folder":
            run.rename("elsewhere")
            shutil.copytree("elsewhere", run)
        else:
            (run / LOCK).unlink()
        other = RunDirectory.open(run)
        other.lock()  # as another process does
        others.update(read_files(run))
        if fails:
            raise ValueError("broken")

    message = "broken" if fails else r"is another folder now, or its \.lock was removed, .*: another process may train"
    with pytest.raises(Exception, match=message):
        train(run_dir="run", plugins=(DoAt(take),))
    assert read_files(Path("run")) == others


def test_nothing_is_written_by_the_thread_that_writes_into_the_run_at_the_path_of_another(tmp_path: Path) -> None:
    files = RunDirectory(tmp_path / "run")
    files.path.mkdir()
    files.lock()
    files.path.rename(tmp_path / "elsewhere")
    files.path.mkdir()
    run = cast(Any, SimpleNamespace(files=files, checkpoints=files.checkpoints()))
    writer = CheckpointWriter(run, Meter(0))
    copy = cast(Any, SimpleNamespace(wait=lambda: None))
    with pytest.raises(TrainingError, match="is another folder now"):
        writer._save(copy, NOTHING, False, False)
    writer.begin_averages(copy)
    with pytest.raises(TrainingError, match="is another folder now"):
        writer.finish()
    files.log("a line")
    files.discard()
    assert not list(files.path.iterdir())


def test_a_run_goes_on_when_a_folder_above_it_is_renamed(train: Callable[..., Any]) -> None:
    """Its relative path leads to it as before."""
    home = Path.cwd()
    Path("project").mkdir()
    os.chdir("project")
    run = train(run_dir="run", plugins=(DoAt(lambda run: (home / "project").rename(home / "renamed")),))
    os.chdir(home)
    assert run.state.images == 24
    assert run.directory == home / "renamed/run"
    assert not Path("project").exists()


# Links


@pytest.mark.parametrize("name", ["log.txt", "stats.jsonl"])
def test_a_run_is_not_written_through_a_link(
    name: str, train: Callable[..., Any], cli: Callable[..., Result], stub: str
) -> None:
    train(run_dir="run")
    outside = Path("outside.txt")
    Path("run", name).rename(outside)
    Path("run", name).symlink_to(outside.resolve())
    before = outside.read_bytes()
    result = cli("resume", "run", "--plugin", stub)
    assert result.exit_code == 2
    assert f"run/{name} is a link to {outside.resolve()}, which training would change" in result.stderr
    assert outside.read_bytes() == before and Path("run", name).is_symlink()


def test_a_folder_that_is_a_link_is_said(train: Callable[..., Any], stub: str) -> None:
    """Checkpoints may be on a disk of their own."""
    train(run_dir="run")
    Path("run/checkpoints").rename("disk")
    Path("run/checkpoints").symlink_to(Path("disk").resolve())
    with pytest.warns(UserWarning, match=r"run/checkpoints is a link: its files are read and written in .*disk"):
        resume("run", plugins=[stub])
    assert json.loads(Path("disk/manifest.json").read_text())


def test_a_run_shows_its_folder_without_the_detours_of_how_it_was_named(train: Callable[..., Any]) -> None:
    Path("elsewhere").mkdir()
    run = train("schedule.sizes = (4,)", run_dir="elsewhere/../run")
    assert run.directory == Path.cwd() / "run"

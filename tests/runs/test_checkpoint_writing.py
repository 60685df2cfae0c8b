"""Test checkpoints while they are written: the process is killed, the disk is full, the folder is read-only."""

from __future__ import annotations

import errno
import json
import os
import signal
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from helpers.forks import fork_command
from helpers.platforms import resource
from helpers.snapshots import snapshot_at

from pggan_kit.errors import RunError, TrainingError
from pggan_kit.runs.checkpoints import MANIFEST, Checkpoints

KILLED = 77
CALLS = ("open", "fsync", "chmod", "replace", "unlink")
"""Functions of `os` that touch the disk while a checkpoint is written."""


def die_at(which: int, torn: bool) -> None:
    """End this process just before its `which`-th call, as SIGKILL would; if `torn`, what was written last is cut."""
    count = 0

    def watch(name: str) -> None:
        real = getattr(os, name)

        def call(*args: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == which:
                if torn and name == "fsync" and stat.S_ISREG(os.fstat(args[0]).st_mode):
                    os.ftruncate(args[0], os.fstat(args[0]).st_size // 2)
                os._exit(KILLED)
            return real(*args, **options)

        setattr(os, name, call)

    for name in CALLS:
        watch(name)


def in_a_child(action: Callable[[], None]) -> int:
    """Do this in a forked process, and return its exit status."""
    child = os.fork()
    if child == 0:
        try:
            action()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize(("torn", "forever"), [(False, True), (True, False)])
def test_whenever_the_process_dies_the_last_checkpoint_or_the_new_one_is_whole(
    tmp_path: Path, torn: bool, forever: bool
) -> None:
    """At every call that touches the disk, one after the other, until a whole save is reached."""
    points = 0
    for which in range(1, 100):
        folder = tmp_path / str(which)
        Checkpoints(folder, keep=1).save(snapshot_at(1), forever)
        before = {path: path.read_bytes() for path in folder.glob("*.pt")}

        def save_and_die(folder: Path = folder, which: int = which) -> None:
            die_at(which, torn)
            Checkpoints(folder, keep=1).save(snapshot_at(2))

        status = in_a_child(save_and_die)
        assert status in (0, KILLED)
        said: list[str] = []
        images = Checkpoints(folder, say=said.append).load_last().images
        assert images in (1, 2) and not said, said
        # Dropped is only what a later whole one stands for.
        assert images == 2 or all(path.read_bytes() == content for path, content in before.items())
        Checkpoints(folder, keep=1).save(snapshot_at(3))
        assert Checkpoints(folder).load_last().images == 3
        assert not list(folder.glob(".*")), "what the killed process left is removed"
        if forever:
            assert all(path.read_bytes() == content for path, content in before.items())
        if status == 0:
            break
        points += 1
    assert points >= 8, "two files: opened, describe_sync, renamed; folders describe_sync"


@pytest.mark.parametrize("first", [True, False])
def test_the_manifest_is_written_after_the_checkpoint_and_before_anything_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    if not first:
        checkpoints.save(snapshot_at(1))
    events: list[str] = []

    def note(module: Any, name: str, describe: Callable[..., str]) -> None:
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args: (events.append(describe(*args)), real(*args))[1])

    def describe_sync(descriptor: int) -> str:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        return "sync folder" if path.is_dir() else f"sync {path.suffix}"

    note(os, "replace", lambda source, target: f"rename {Path(target).suffix}")
    note(os, "fsync", describe_sync)
    note(Path, "unlink", lambda path: f"remove {path.suffix}")
    checkpoints.save(snapshot_at(2))
    wanted = ["sync .part", "rename .pt", "sync folder", "sync .part", "rename .json", "sync folder"]
    assert events == wanted + ([] if first else ["remove .pt"])


@contextmanager
def small_disk(most: int) -> Iterator[None]:
    """Keep files from growing beyond this many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    kept = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, kept)


@pytest.mark.parametrize("part", [0.0, 0.01, 0.3, 0.7, 0.99])
def test_a_disk_that_fills_up_is_a_clear_error_and_touches_nothing(tmp_path: Path, part: float) -> None:
    checkpoints = Checkpoints(tmp_path)
    path = checkpoints.save(snapshot_at(1))
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with small_disk(int(part * path.stat().st_size)), pytest.raises(TrainingError) as raised:
        checkpoints.save(snapshot_at(2))
    assert str(raised.value).startswith(f"cannot write {tmp_path}")
    assert str(raised.value).endswith(": File too large. What was saved before is untouched")
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    checkpoints.save(snapshot_at(2))
    assert checkpoints.load_last().images == 2


def test_a_disk_that_is_full_at_the_manifest_leaves_the_checkpoint_that_was_written(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=100)
    size = max(checkpoints.save(snapshot_at(images)).stat().st_size for images in range(30))
    assert (tmp_path / MANIFEST).stat().st_size > size, "the manifest is larger than a checkpoint here"
    with small_disk(size + 10), pytest.raises(TrainingError, match=r"manifest\.json: File too large"):
        checkpoints.save(snapshot_at(30))
    assert checkpoints.load_last().images == 30, "it proves itself, though no manifest lists it"
    checkpoints.save(snapshot_at(31))
    assert [entry.images for entry in checkpoints.read_entries()] == list(range(32))


UNWRITABLE = {"read-only file system": errno.EROFS, "no permission": errno.EACCES, "disk error": errno.EIO}


@pytest.mark.parametrize("reason", UNWRITABLE)
@pytest.mark.parametrize("call", CALLS)
def test_a_folder_that_cannot_be_written_is_a_clear_error_and_touches_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, reason: str
) -> None:
    """Root may write anywhere, so the calls themselves refuse."""
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(snapshot_at(1))
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    number = UNWRITABLE[reason]

    def refuse(*args: Any, **options: Any) -> Any:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, refuse)
    if call == "unlink":  # nothing is lost if a file too many stays
        checkpoints.save(snapshot_at(2))
    else:
        with pytest.raises(TrainingError, match=rf"cannot write .*: {os.strerror(number)}.*untouched"):
            checkpoints.save(snapshot_at(2))
    monkeypatch.undo()
    if call != "unlink":
        assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    assert Checkpoints(tmp_path).load_last().images in (1, 2)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_a_clear_error(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(snapshot_at(1))
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(TrainingError, match=r"cannot write .*Permission denied.*untouched"):
            checkpoints.save(snapshot_at(2))
        assert checkpoints.load_last().images == 1
    finally:
        tmp_path.chmod(0o700)


def test_unfinished_files_of_a_dead_process_are_removed_on_the_next_save(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(snapshot_at(1))
    for name in (".000000000002-01234567.pt.abc123.part", f".{MANIFEST}.xyz.part"):
        (tmp_path / name).write_bytes(b"half")
    assert Checkpoints(tmp_path).load_last().images == 1
    Checkpoints(tmp_path).save(snapshot_at(2))
    assert not list(tmp_path.glob(".*"))


FULL_DISK = """
import resource
from pggan_kit import Component, hookimpl

class Full:
    @hookimpl
    def after_tick(self, state):
        if state.images >= 24:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))

@hookimpl
def components():
    return [Component("observers", "Full", Full)]
"""


def test_a_disk_that_fills_up_in_the_middle_of_a_run_ends_it_with_1_and_it_can_be_resumed(
    tiny: Callable[..., str], cli: Callable[..., Result], stub: str
) -> None:
    config = tiny("train.observers = [@observers.Full()]")
    Path("full.py").write_text(FULL_DISK)
    # In a process of its own, since the limit is one of the process.
    process = fork_command("train", config, "--run-dir", "run", "--plugin", stub, "--plugin", "full.py")
    code = process.wait()
    message = process.read_errors().strip()
    assert code == 1, message
    assert message.startswith("error: cannot write run/checkpoints/") and "\n" not in message, message
    assert message.endswith("File too large. What was saved before is untouched")
    Path("full.py").write_text(FULL_DISK.replace("24", "2400"))
    result = cli("resume", "run", "--plugin", stub, "--plugin", "full.py")
    assert result.exit_code == 0, result.output
    stats = [json.loads(line)["images"] for line in Path("run/stats.jsonl").read_text().splitlines()]
    assert stats == sorted(set(stats)) and stats[-1] == 40


def test_a_row_that_cannot_be_written_is_a_failed_run_and_not_wrong_input(train: Callable[..., Any]) -> None:
    run = train(run_dir="run")
    with small_disk(10), pytest.raises(TrainingError, match=r"cannot write run/stats\.jsonl: File too large"):
        run.files.append_stats({"images": 48})
    assert [row["images"] for row in run.files.stats()][-1] == 40, "a half-written row is none"
    with small_disk(10):
        run.files.log("this does not fit, and ends nothing")
    with small_disk(10), pytest.raises(RunError, match=r"cannot write run/stats\.jsonl"):
        run.files.cut_stats(8)
    assert run.files.stats()[-1]["images"] == 40

"""Two at once: a run directory belongs to one process at a time, and a process that dies gives it back."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from pggan_kit import hookimpl
from pggan_kit.api.train import resume
from pggan_kit.errors import RunError
from pggan_kit.runs.directory import RunDirectory
from pggan_kit.system import locks
from pggan_kit.system.locks import LOCK, RunLock

HOLD = """
import sys, time
from pathlib import Path
from pggan_kit.system.locks import RunLock
lock = RunLock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def hold() -> Iterator[Callable[[Path], subprocess.Popen[str]]]:
    """`hold(folder)` starts another process that holds the folder's lock."""
    started = []

    def start(folder: Path) -> subprocess.Popen[str]:
        process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_second_process_is_refused_and_told_which_one_holds_it(
    tmp_path: Path, hold: Callable[[Path], subprocess.Popen[str]]
) -> None:
    other = hold(tmp_path)
    with pytest.raises(RunError, match=rf"in use by process {other.pid} on .*; wait until it ends, or stop it"):
        RunLock(tmp_path)


def test_a_process_that_is_killed_gives_the_lock_back(
    tmp_path: Path, hold: Callable[[Path], subprocess.Popen[str]]
) -> None:
    other = hold(tmp_path)
    other.send_signal(signal.SIGKILL)
    other.wait()
    with RunLock(tmp_path):
        assert (tmp_path / LOCK).read_text().startswith(f"process {os.getpid()} on ")


def test_a_run_that_another_process_trains_is_not_resumed(
    train: Callable[..., Any], cli: Callable[..., Result], stub: str, hold: Callable[[Path], subprocess.Popen[str]]
) -> None:
    train(run_dir="run")
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file() and path.name != LOCK}
    other = hold(Path("run"))
    result = cli("resume", "run", "--plugin", stub)
    assert result.exit_code == 2
    assert f"run is in use by process {other.pid}" in result.stderr
    assert {path: path.read_bytes() for path in before} == before
    assert cli("sample", "run", "--count", "1", "--out", "x.npz").exit_code == 0, "reading needs no lock"
    other.kill()
    other.wait()
    assert cli("resume", "run", "--plugin", stub).exit_code == 0


def test_a_folder_that_another_process_has_just_taken_is_refused_and_not_touched(
    tiny: Callable[..., str], cli: Callable[..., Result], stub: str, hold: Callable[[Path], subprocess.Popen[str]]
) -> None:
    """Both found it empty, and the other was faster."""
    Path("run").mkdir()
    hold(Path("run"))
    result = cli("train", tiny(), "--run-dir", "run", "--plugin", stub)
    assert result.exit_code == 2 and "run is in use by process" in result.stderr
    assert [path.name for path in Path("run").iterdir()] == [LOCK]


class Intruder:
    """Tries to resume the run while it is trained, from each hook of a stage's start."""

    def __init__(self) -> None:
        self.refused: list[str] = []

    @hookimpl
    def before_stage(self, run: Any) -> None:
        with pytest.raises(RunError) as raised:
            RunDirectory.open(run.directory).lock()
        self.refused.append(str(raised.value))


def test_the_lock_is_held_from_the_first_stage_to_the_last_and_no_longer(train: Callable[..., Any], stub: str) -> None:
    intruder = Intruder()
    train(plugins=(intruder,), run_dir="run")
    assert len(intruder.refused) == 3 and all(f"process {os.getpid()}" in text for text in intruder.refused)
    with RunLock(Path("run")):
        pass
    resume("run", plugins=[stub, intruder])
    assert len(intruder.refused) == 4
    with RunLock(Path("run")):
        pass


class Failing:
    """An observer that fails."""

    @hookimpl
    def before_stage(self) -> None:
        raise RuntimeError("broken")


def test_a_run_that_fails_gives_the_lock_back(train: Callable[..., Any], stub: str) -> None:
    for _ in range(2):
        with pytest.raises(Exception, match="broken"):
            train(plugins=(Failing(),), run_dir=None)
    runs = list(Path("runs").glob("[!.]*"))
    assert len(runs) == 2
    for path in runs:
        with RunLock(path):
            pass


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that has no locks."""

    def refuse(self: Any, timeout: float = -1) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(locks.FileLock, "acquire", refuse)


def test_without_file_locks_a_run_still_trains(train: Callable[..., Any], no_locks: None) -> None:
    assert train().state.images == 40


def test_a_file_system_without_locks_refuses_nobody(tmp_path: Path, no_locks: None) -> None:
    with RunLock(tmp_path), RunLock(tmp_path):
        pass


def test_a_full_disk_is_no_reason_not_to_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        held = RunLock(tmp_path)
    with held, pytest.raises(RunError, match="in use by another process"):
        RunLock(tmp_path)


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"cannot write .*missing/\.lock: No such file"):
        RunLock(tmp_path / "missing")


def test_what_a_lock_file_says_cannot_steer_a_terminal_and_a_link_is_not_followed(tmp_path: Path) -> None:
    with RunLock(tmp_path):
        (tmp_path / LOCK).write_text("\x1b[2J evil\r\n" + "x" * 10_000)
        with pytest.raises(RunError) as raised:
            RunLock(tmp_path)
    message = str(raised.value)
    assert message.isprintable() and len(message) < 600 + len(str(tmp_path))
    (tmp_path / LOCK).unlink()
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / LOCK).symlink_to(victim)
    with pytest.raises(RunError, match="cannot write"):
        RunLock(tmp_path)
    assert victim.read_text() == "precious"


def test_a_file_is_shared_or_had_alone(tmp_path: Path) -> None:
    path = tmp_path / "used"
    assert locks.share(path) is None, "there is no such file"
    path.touch()
    one = locks.share(path)
    two = locks.share(path)
    assert one is not None and two is not None
    with pytest.raises(locks.InUseError):
        locks.share(path, alone=True)
    os.close(one)
    with pytest.raises(locks.InUseError):
        locks.share(path, alone=True)
    os.close(two)
    alone = locks.share(path, alone=True)
    assert alone is not None
    with pytest.raises(locks.InUseError):
        locks.share(path)
    os.close(alone)


def test_a_file_that_is_removed_as_it_is_locked_is_not_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "used"
    path.touch()
    flock = locks.fcntl.flock

    def remove_first(descriptor: int, operation: int) -> None:
        path.unlink()
        flock(descriptor, operation)

    monkeypatch.setattr(locks.fcntl, "flock", remove_first)
    assert locks.share(path) is None

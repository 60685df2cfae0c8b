"""Trials as processes of this machine: how many at once, with what, and how they are stopped."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from pggan_kit.components import Trial
from pggan_kit.testing import LauncherSuite
from pggan_plugins.launchers import Local, local


class TestLocal(LauncherSuite):
    bad_arguments = ({"jobs": 0}, {"cores": 0}, {"trials_per_gpu": 0}, {"retries": -1})

    def make(self) -> Local:
        return Local(jobs=2)


def make_trial(folder: Path, name: str, code: str) -> Trial:
    return Trial(name, [sys.executable, "-c", code], folder / f"{name}.log", folder)


PRINT_TIMES = (
    "import os, time; begin = time.time(); time.sleep(0.4); "
    "print(begin, time.time(), *(os.environ.get(name) for name in {}))"
)
"""Code of a trial that prints when it began and ended, and the environment variables of a list."""


def test_no_more_than_jobs_run_at_once(tmp_path: Path) -> None:
    names = "abcd"
    Local(jobs=2).launch([make_trial(tmp_path, name, PRINT_TIMES.format([])) for name in names])
    spans = [[float(word) for word in (tmp_path / f"{name}.log").read_text().split()] for name in names]
    at_once = [sum(begin <= start < end for begin, end in spans) for start, _ in spans]
    assert max(at_once) == 2


def test_each_has_its_share_of_cores_and_its_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "list_gpus", lambda: ["4", "7"])
    launcher = Local(cores=3, trials_per_gpu=2)
    assert launcher.jobs == 4, "two to each of the two GPUs"
    code = PRINT_TIMES.format(["OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"])
    launcher.launch([make_trial(tmp_path, name, code) for name in "abcd"])
    shares = [(tmp_path / f"{name}.log").read_text().split()[2:] for name in "abcd"]
    assert shares == [["3", "4"], ["3", "7"], ["3", "4"], ["3", "7"]]


@pytest.mark.parametrize(
    ("gpus", "jobs", "trials_per_gpu", "wanted"),
    [(["0", "1"], 8, 1, 2), (["0", "1"], 8, 3, 6), (["0", "1"], 2, 8, 2), (["0", "1"], None, 3, 6), ([], 8, 3, 8)],
)
def test_no_more_trials_than_asked_for_share_a_gpu(
    gpus: list[str], jobs: int | None, trials_per_gpu: int, wanted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "list_gpus", lambda: gpus)
    assert Local(jobs=jobs, trials_per_gpu=trials_per_gpu).jobs == wanted


def test_jobs_follow_from_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "list_gpus", list)
    monkeypatch.setattr(local, "count_cores", lambda: 8)
    assert (Local().jobs, Local(cores=3).jobs, Local(cores=9).jobs, Local(jobs=5).jobs) == (8, 2, 1, 5)


@pytest.mark.parametrize(("visible", "wanted"), [(None, ["0", "1"]), ("5,3", ["5", "3"]), ("", ["0", "1"])])
def test_gpus_are_those_that_this_process_may_use(
    visible: str | None, wanted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert local.list_gpus() == wanted


def test_a_trial_that_keeps_failing_is_given_up(tmp_path: Path) -> None:
    code = "print('x', flush=True); raise SystemExit(5)"
    assert Local(jobs=1, retries=3).launch([make_trial(tmp_path, "fails", code)]) == [5]
    assert (tmp_path / "fails.log").read_text().count("x") == 4


def test_the_log_names_a_missing_program(tmp_path: Path) -> None:
    log = tmp_path / "log"
    # More jobs than trials cost nothing, not even to count to their number.
    assert Local(jobs=10**12).launch([Trial("missing", ["no-such-program"], log)]) == [127]
    assert log.read_text() == "cannot start no-such-program: No such file or directory\n"


@pytest.mark.parametrize(
    ("number", "code", "tries"),
    [
        (errno.EAGAIN, 126, 3),
        (errno.ENOMEM, 126, 3),
        (errno.ENOSPC, 126, 3),
        (errno.EACCES, 127, 1),
        (errno.ENOEXEC, 127, 1),
    ],
)
def test_what_cannot_be_started_now_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int, tries: int
) -> None:
    """Too many processes or a full disk pass; a program that may not be run stays so."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        refusals.append(1)
        raise OSError(number, os.strerror(number))

    refusals: list[int] = []
    monkeypatch.setattr("subprocess.Popen", refuse)
    assert Local(jobs=1, retries=2).launch([make_trial(tmp_path, "a", "")]) == [code]
    assert len(refusals) == tries
    monkeypatch.undo()


def test_a_terminals_interrupt_reaches_no_trial_by_itself(tmp_path: Path) -> None:
    """The terminal signals a whole session; a trial that got a second signal from the launcher would not save."""
    Local(jobs=1).launch([make_trial(tmp_path, "own", "import os; print(os.getsid(0) == os.getpid())")])
    assert (tmp_path / "own.log").read_text() == "True\n"

"""Test a whole run under torchrun: one asked to stop, a rank that exits, one that hangs; and resuming afterwards."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import STUB
from helpers.forks import Fork, fork_ranks
from helpers.killing import last
from helpers.patience import PATIENCE_SECONDS

from pggan_kit.api.train import resume
from pggan_kit.cli import main

LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
PROGRAM = ("--no-python", str(Path(sys.executable).parent / "pggan-kit"))

ACT = """\
import os, signal, time
from pggan_kit import hookimpl

@hookimpl
def after_step(state):
    if os.environ.get("RANK") == "1" and state.images == 12:
        {code}
"""

IMPATIENT = """\
from datetime import timedelta
from pggan_kit.system import distributed
from pggan_kit.cli import main
distributed.TIMEOUT = timedelta(seconds=5)
main()
"""
"""Program of the command line, for processes that do not wait long for each other."""

Torchrun = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def torchrun(tiny: Callable[..., str]) -> Torchrun:
    """Return a function that trains the tiny experiment in two processes: `torchrun(code)`.

    Rank 1 runs the code after its third step.
    """

    def run(code: str, *lines: str, ranks: int = 2, program: tuple[str, ...] = PROGRAM) -> object:
        Path("act.py").write_text(ACT.format(code=code))
        args = ["train", tiny(*lines), "--plugin", STUB, "--plugin", "act.py", "--run-dir", "run"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        ended = subprocess.run(
            [*LAUNCH, str(ranks), *program, *map(str, args)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )
        Path("act.py").write_text(ACT.format(code="pass"))
        return ended

    return run  # type: ignore[return-value]


def resume_and_count() -> int:
    """Resume the run in one process, and return the images at its end."""
    return resume("run", plugins=[STUB]).state.images


STOPPED = "stopped at images 16 and saved; go on with: pggan-kit resume run"


def fork_two(tiny: Callable[..., str], code: str) -> list[Fork]:
    """Train as `torchrun` does, in forks: three starts of Python with all imports take 14 s."""
    Path("act.py").write_text(ACT.format(code=code))
    words = ["train", tiny(), "--plugin", str(STUB), "--plugin", "act.py", "--run-dir", "run"]
    return fork_ranks(2, lambda: main(words))


def test_a_signal_to_one_rank_stops_all_at_the_same_step(tiny: Callable[..., str]) -> None:
    first, second = fork_two(tiny, "os.kill(os.getpid(), signal.SIGTERM)")
    assert (first.wait(), second.wait()) == (143, 143)
    assert STOPPED in first.read_errors()
    assert last(Path("run"))["images"] == 16
    Path("act.py").write_text(ACT.format(code="pass"))
    assert resume_and_count() == 40


def test_a_rank_that_exits_ends_all_with_a_message(tiny: Callable[..., str]) -> None:
    left, exited = fork_two(tiny, "os._exit(3)")
    assert (left.wait(), exited.wait()) == (1, 3)
    assert left.read_errors().startswith("error: process 0 of 2 lost the others: one of them has exited")
    assert last(Path("run"))["images"] == 8, "the last tick's"
    Path("act.py").write_text(ACT.format(code="pass"))
    assert resume_and_count() == 40


@pytest.mark.slow
def test_a_rank_that_hangs_is_not_waited_for_forever(torchrun: Torchrun) -> None:
    Path("impatient.py").write_text(IMPATIENT)
    ended = torchrun("time.sleep(1000)", program=("impatient.py",))
    assert ended.returncode != 0
    assert "error: process 0 of 2 lost the others" in ended.stderr and "does not answer" in ended.stderr
    assert last(Path("run"))["images"] == 8


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "lines", "message"),
    [
        ("pass", ["schedule.batch_size = 5"], "schedule.batch_size 5 does not divide over 2 processes"),
        ("raise ValueError('no')", [], "after_step"),
        (
            "state.network = None",
            [],
            r"training failed at images 12 \(stage 8x8, fade\) in train\.update \(.*\), .* on process 1 of 2: Type",
        ),
    ],
)
def test_errors_are_reported(code: str, lines: list[str], message: str, torchrun: Torchrun) -> None:
    ended = torchrun(code, *lines)
    assert ended.returncode != 0 and re.search(message, ended.stderr) and "error: " in ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
def test_a_signal_to_torchrun_stops_all(number: str, torchrun: Torchrun) -> None:
    ended = torchrun(f"os.kill(os.getppid(), signal.{number}); time.sleep(2)")
    assert ended.returncode != 0 and "and saved; go on with: pggan-kit resume run" in ended.stderr
    assert last(Path("run"))["images"] in (12, 16, 20)
    assert resume_and_count() == 40


def test_a_rank_that_finds_no_others_says_so(rejected: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    rejected(r"WORLD_SIZE is 2 in the environment, and the other processes cannot be found: start all .* torchrun")


@pytest.mark.slow
def test_two_stop_and_four_go_on(torchrun: Torchrun) -> None:
    ended = torchrun("os.kill(os.getpid(), signal.SIGTERM)")
    assert ended.returncode != 0
    assert STOPPED in ended.stderr
    assert re.search(r"exitcode\s*: 143", ended.stderr)
    assert last(Path("run"))["images"] == 16
    command = [*PROGRAM, "resume", "run", "--plugin", STUB]
    ended = subprocess.run([*LAUNCH, "4", *map(str, command)], capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert ended.returncode == 0, ended.stderr
    assert last(Path("run"))["images"] == 40

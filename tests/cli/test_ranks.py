"""Test `--ranks`: the command starts the other processes itself, which end with it, and says how a lost one ended."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import Result
from conftest import STUB
from helpers.forks import Fork, fork_command, wait_until
from helpers.killing import last
from helpers.patience import PATIENCE_SECONDS

import pggan_kit
from pggan_kit.cli import ranks

Cli = Callable[..., Result]

TWO_STAGES = "schedule.sizes = (4, 8)"
"""One growth and one fade: 24 images."""

PLUGIN = """\
import os
from pathlib import Path
from pggan_kit import hookimpl

if os.environ.get("RANK") == "1":
    Path("rank1").write_text(str(os.getpid()))
    {at_start}

@hookimpl
def after_step(state):
    Path("steps" + os.environ.get("RANK", "")).write_text(str(state.images))
    if os.environ.get("RANK") == "1" and state.images == 12:
        {in_training}
"""


def train_in_two(tiny: Callable[..., str], *lines: str, at_start: str = "pass", in_training: str = "pass") -> Fork:
    """Start `train --ranks 2` with a plugin whose two pieces of code run on rank 1 alone."""
    Path("act.py").write_text(PLUGIN.format(at_start=at_start, in_training=in_training))
    words = [
        "train",
        tiny(TWO_STAGES, *lines),
        "--ranks",
        2,
        "--plugin",
        STUB,
        "--plugin",
        "act.py",
        "--run-dir",
        "run",
    ]
    return fork_command(*words, before=_lose_nobody_for_long)


def _lose_nobody_for_long() -> None:
    ranks.END_SECONDS = 5.0


def has_ended(pid: int) -> bool:
    """Return whether a process is gone, or waits for nothing but its parent to read its exit code."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_two_processes_train_as_one_does(tiny: Callable[..., str], cli: Cli) -> None:
    whole_groups = "schedule.batch_size = 8"  # of the minibatch stddev, four on each rank
    process = train_in_two(tiny, whole_groups)
    assert process.wait() == 0, process.read_errors()
    assert last(Path("run"))["images"] == 24
    assert Path("steps1").read_text() == "24", "rank 1 has taken part to the end"

    cli("train", tiny(TWO_STAGES, whole_groups), "--plugin", STUB, "--run-dir", "alone")
    pairs = zip(
        pggan_kit.load_generator("run").parameters(),
        pggan_kit.load_generator("alone").parameters(),
        strict=True,
    )
    assert all(torch.allclose(ours, alone, atol=1e-5) for ours, alone in pairs)


def test_a_process_that_is_lost_in_training_is_shown(tiny: Callable[..., str]) -> None:
    process = train_in_two(tiny, in_training="print('no room', flush=True); os._exit(3)")
    assert process.wait() == 1
    assert "process 1 ended with exit code 3:\nno room\nerror: process 0 of 2 lost the others" in process.read_errors()


def test_a_process_that_is_lost_before_training_ends_the_wait_for_it(tiny: Callable[..., str]) -> None:
    process = train_in_two(tiny, at_start="print('no room', flush=True); os._exit(3)")
    assert process.wait() == 1
    assert "process 1 ended with exit code 3:\nno room" in process.read_errors()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks up another process in /proc")
def test_the_others_end_with_a_killed_rank_0(tiny: Callable[..., str]) -> None:
    process = train_in_two(tiny, in_training="import time; time.sleep(1000)")
    wait_until(lambda: Path("run/logs").exists() or (Path("run") / "stats.jsonl").exists(), process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    pid = int(Path("rank1").read_text())
    until = time.monotonic() + PATIENCE_SECONDS
    while not has_ended(pid):
        assert time.monotonic() < until, "rank 1 outlives rank 0"
        time.sleep(0.02)


def test_wrong_numbers_are_refused(cli: Cli, tiny: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Invalid value for '--ranks': 0 is not in the range x>=1" in cli("train", tiny(), "--ranks", 0).stderr
    assert "Invalid value for '--ranks': 0 is not in the range x>=1" in cli("resume", "run", "--ranks", 0).stderr

    monkeypatch.setenv("WORLD_SIZE", "2")
    result = cli("train", tiny(), "--ranks", 2)
    assert result.exit_code == 2
    assert "--ranks 2 starts the processes itself: leave out torchrun, or --ranks" in result.stderr


def test_processes_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the user has set stands, and afterwards the environment is as it was."""
    started: list[dict[str, str]] = []

    class NoProcess:
        """A process that ends at once."""

        def __init__(self, rank: int, place: dict[str, str], folder: Path) -> None:
            started.append(place)
            self.process = self

        def wait(self, timeout: float) -> int:
            return 0

        def exit_if_lost_early(self) -> None:
            """Look after nothing."""

    # Five cores for two processes, and for eight.
    monkeypatch.setattr(ranks, "OtherRank", NoProcess)
    monkeypatch.setattr(ranks, "count_cores", lambda: 5)
    monkeypatch.delenv("OMP_NUM_THREADS")
    before = dict(os.environ)
    with ranks.start_ranks(2):
        assert os.environ["OMP_NUM_THREADS"] == "2" and os.environ["RANK"] == "0"
    assert dict(os.environ) == before
    with ranks.start_ranks(8):
        assert os.environ["OMP_NUM_THREADS"] == "1"

    # What the user has set.
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    with ranks.start_ranks(2):
        pass
    assert [place["OMP_NUM_THREADS"] for place in started] == ["2", *["1"] * 7, "3"]

"""The option `--ranks`: processes of one machine that train together, started by the command itself.

Only what begins before torch is imported can give each process its share of the cores, so nothing here imports torch.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from pggan_kit.cli.base import FAILED, print_message, restore_variable
from pggan_kit.errors import LostRanksError, UserError
from pggan_kit.system.processes import RENDEZVOUS, count_cores, write_command

END_SECONDS = 20.0
"""Seconds that the other processes have to exit once this one is done."""

LINES = 12
"""Number of lines shown of the output of a failed process: its last ones."""

ranks_option: Callable[[Any], Any] = click.option(
    "--ranks",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Train in this many processes of this machine, each with a part of every batch.",
)


@contextlib.contextmanager
def start_ranks(count: int) -> Iterator[None]:
    """Start the other processes of this command, and let this one be rank 0 of them until the block ends.

    The others run the same command. What they print is shown where one of them fails. They end with this process,
    whatever ends it.

    Args:
        count: Number of processes, this one among them. 1 changes nothing.

    Raises:
        UserError: `torchrun` has started this process already.
    """
    if count == 1 or RENDEZVOUS in os.environ:  # one of the others, which run the same command
        yield
        return
    if "WORLD_SIZE" in os.environ:
        raise UserError(f"--ranks {count} starts the processes itself: leave out torchrun, or --ranks")

    with tempfile.TemporaryDirectory(prefix="pggan_kit-ranks-", ignore_cleanup_errors=True) as folder:
        # The others find this process in a file that only they know.
        place = {
            "WORLD_SIZE": str(count),
            RENDEZVOUS: (Path(folder).resolve() / "rendezvous").as_uri(),
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, count_cores() // count))),
        }
        others = [OtherRank(rank, place, Path(folder)) for rank in range(1, count)]
        own = {**place, "RANK": "0", "LOCAL_RANK": "0"}
        before = {name: os.environ.get(name) for name in own}
        os.environ.update(own)
        for other in others:
            other.exit_if_lost_early()

        # This process is rank 0 meanwhile.
        try:
            yield
        except LostRanksError:
            _wait_for_end(others)
            for other in others:
                other.show_end()
            raise
        finally:
            _wait_for_end(others)
            for name, value in before.items():
                restore_variable(name, value)


class OtherRank:
    """A process that runs the same command as another rank.

    Args:
        rank: The rank, at least 1.
        place: Environment variables by which all ranks find each other.
        folder: Folder for what it prints.
    """

    def __init__(self, rank: int, place: dict[str, str], folder: Path) -> None:
        self._rank = rank
        self._log = folder / f"rank{rank}.log"
        follow = "from pggan_kit.cli.ranks import exit_with_rank_0; exit_with_rank_0(); "
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                write_command(*sys.argv[1:], first=follow),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={**os.environ, **place, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            )

    def show_end(self) -> None:
        """Print how the process ended, with the last lines that it printed."""
        lines = self._log.read_text(errors="replace").splitlines()[-LINES:]
        print_message("\n".join([f"process {self._rank} ended with exit code {self.process.returncode}:", *lines]))

    def exit_if_lost_early(self) -> None:
        """Exit if the process ends before all have found each other: nothing else would end the wait for it."""

        def watch() -> None:
            self.process.wait()
            # What is wrong for all ranks, such as a setting, ends this one by itself, with a message of its own.
            time.sleep(END_SECONDS)
            distributed = sys.modules.get("torch.distributed")
            if RENDEZVOUS in os.environ and (distributed is None or not distributed.is_initialized()):
                self.show_end()
                os._exit(FAILED)

        threading.Thread(target=watch, name=f"start of rank {self._rank}", daemon=True).start()


def exit_with_rank_0() -> None:
    """Exit as soon as the process that started this one has ended, which closes this one's input."""

    def watch() -> None:
        # Not through `sys.stdin`, whose lock a thread that waits would hold when Python exits.
        os.read(0, 1)
        os._exit(FAILED)

    threading.Thread(target=watch, name="end of rank 0", daemon=True).start()


def _wait_for_end(others: list[OtherRank]) -> None:
    """Wait for the other processes, and kill those that do not end: one that waits for rank 0 would wait for long."""
    until = time.monotonic() + END_SECONDS
    for other in others:
        try:
            other.process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            other.process.kill()
            other.process.wait()

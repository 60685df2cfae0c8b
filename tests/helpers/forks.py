"""Processes that are forks of this one, in which everything that takes seconds to import is imported already.

They begin at once, and can be killed. A test of how a process starts, such as what it imports, runs
`python -m pggan_kit` instead.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
import torch._dynamo  # what torch imports with the first optimizer: once here, and not in each fork
from helpers.patience import PATIENCE_SECONDS

from pggan_kit.cli import main
from pggan_kit.components import Trial
from pggan_kit.trials import processes
from pggan_plugins.launchers import local


class Fork:
    """A process with its own session, signals, limits, exit code and output, and the methods of `subprocess.Popen`.

    Args:
        work: What the process does. It ends as a program does: with 0, by `SystemExit`, or with a traceback and 1.
        log: File that its output is appended to, stdout and stderr together; None to keep the two for `read_output`
            and `read_errors`.

    Attributes:
        returncode: The exit code as `subprocess` gives it, or None until `poll` or `wait` has seen the end.
    """

    def __init__(self, work: Callable[[], object], log: Path | None = None) -> None:
        if log is None:
            self._output = _open_unnamed_file()
            self._errors = _open_unnamed_file()
        else:
            self._output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            self._errors = self._output
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            self._run(work)

    def _run(self, work: Callable[[], object]) -> NoReturn:
        code = 1
        try:
            self._enter_process()
            work()
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def _enter_process(self) -> None:
        """Give the fork what a new process has: it inherits pytest's files, locks and handlers of signals."""
        # A forgotten file of the other process, if it were collected here, would close a number that another file has.
        gc.freeze()
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(self._output, 1)
        os.dup2(self._errors, 2)
        # A lock that the other process holds must not outlive it here.
        os.closerange(3, 4096)
        sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115

        for number in (signal.SIGHUP, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        # A shell's background jobs ignore SIGINT.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        torch.set_num_threads(1)

    def poll(self) -> int | None:
        """Return the exit code, or None while the process runs."""
        if self.returncode is None:
            child, status = os.waitpid(self.pid, os.WNOHANG)
            if child:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float = PATIENCE_SECONDS) -> int:
        """Wait for the end, and return the exit code.

        Raises:
            TimeoutExpired: The process still runs.
        """
        until = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired("a fork", timeout)
            time.sleep(0.005)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask the process to stop."""
        self.send_signal(signal.SIGTERM)

    def read_output(self) -> str:
        """Return what the process wrote to stdout."""
        return _read_from_start(self._output)

    def read_errors(self) -> str:
        """Return what the process wrote to stderr."""
        return _read_from_start(self._errors)


def _open_unnamed_file() -> int:
    """Return the descriptor of an empty file that is gone once it is closed."""
    descriptor, path = tempfile.mkstemp()
    os.unlink(path)
    return descriptor


def _read_from_start(descriptor: int) -> str:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode()


def fork_command(
    *words: Any,
    log: Path | None = None,
    environment: Mapping[str, str] | None = None,
    before: Callable[[], None] | None = None,
) -> Fork:
    """Start `pggan-kit` with these words.

    Args:
        words: Arguments of the command.
        log: File that its output is appended to, see `Fork`.
        environment: Environment variables that differ from those of this process.
        before: Function that is called in the new process first.
    """
    arguments = [str(word) for word in words]

    def work() -> None:
        os.environ.update(environment or {})
        if before is not None:
            before()
        sys.argv = ["pggan-kit", *arguments]
        main(arguments, prog_name="pggan-kit")

    return Fork(work, log)


def fork_ranks(count: int, work: Callable[[], object]) -> list[Fork]:
    """Start processes that find each other as those of `torchrun` on one machine do."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "CUDA_VISIBLE_DEVICES": ""}

    def join_as(rank: int) -> Callable[[], object]:
        def join_and_work() -> None:
            os.environ |= {**place, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            work()

        return join_and_work

    return [Fork(join_as(rank)) for rank in range(count)]


def run_pytest(folder: Path, *words: Any) -> Fork:
    """Run pytest with these words in a folder to its end."""

    def work() -> NoReturn:
        os.chdir(folder)
        sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", *map(str, words)]))

    process = Fork(work)
    process.wait()
    return process


def launch_in_forks() -> None:
    """Let `launchers.Local` of this process start trials as forks, which look for their `ablate` more often."""
    processes.WATCH_SECONDS = 0.1

    def start(trial: Trial, environment: Mapping[str, str], before: Callable[[], None] | None = None) -> Fork:
        # What follows `python -c CODE` is the command line.
        return fork_command(*trial.command[3:], log=trial.log, environment=environment, before=before)

    local.start_process = start  # type: ignore[assignment]
    local.find_preparation = lambda trials: None


def wait_until(condition: Callable[[], bool], process: Fork | None = None) -> None:
    """Wait until a condition holds; a process that ends before is an error."""
    until = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        assert process is None or process.poll() is None, f"the process ended with {process.returncode}"
        time.sleep(0.01)
